"""Xet on the Hub on loopback: tokens that name a directory as the storage, and what real hf_xet clients put there.

The storage (CAS) is `local://DIRECTORY`, which hf_xet writes and reads by itself; the Hub only hands out the tokens,
and learns from the directory which content has the sha256 that a commit names. One process may use the directory at a
time: hf_xet locks its index for as long as a session lives, so the Hub reads a copy made of hard links.
"""

import os
import shutil
import struct
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hub_handler import API, REVISION, HubHandler, RefusalError, Route

_TOKEN_S = 3600
_INDEX = "global_dedup_lookup.redb"
_SHARD_HEADER_BYTES = 48
_ENTRY_BYTES = 48
_END = b"\xff" * 32
_HAS_CHECKS, _HAS_SHA256 = 1 << 31, 1 << 30


@dataclass(frozen=True)
class XetFile:
    """A file of the storage: its name there, its size, and its sha256 where the client has told it."""

    hash: str
    size: int
    sha256: str | None


class XetStorage:
    """A directory that clients of xet write to."""

    def __init__(self, directory: Path) -> None:
        self.url = f"local://{directory}"
        self._contents = directory / "xet" / "xorbs"
        self._lock = threading.Lock()

    def files(self) -> Iterator[XetFile]:
        for shard in sorted((self._contents / "shards").glob("*.mdb")):
            yield from _files_of(shard.read_bytes())

    def find(self, *, sha256: str | None = None, hash: str | None = None) -> XetFile | None:
        """The file of that sha256, or of that name in the storage."""
        wanted = (file for file in self.files() if (file.sha256 == sha256 if sha256 else file.hash == hash))
        return next(wanted, None)

    def read(self, file: XetFile) -> bytes:
        """Its content, put together by hf_xet itself."""
        import hf_xet

        with self._lock, tempfile.TemporaryDirectory() as scratch:
            copy = Path(scratch, "xet", "xorbs")
            for directory in ("shards", "xorbs"):
                shutil.copytree(self._contents / directory, copy / directory, copy_function=os.link)
            shutil.copy(self._contents / _INDEX, copy)
            access = {"endpoint": f"local://{scratch}", "token": "-", "token_expiry_unix_secs": _expiry()}
            with hf_xet.XetSession().new_file_download_group(**access) as group:
                group.start_download_file(hf_xet.XetFileInfo(file.hash, file.size), f"{scratch}/content")
            return Path(scratch, "content").read_bytes()


def token(call: HubHandler, kind: str, id: str, right: str, revision: str) -> None:
    repository = call.repository(kind, id)
    call.commit_of(repository, revision)
    if right == "write" and call.token not in repository.writers:
        raise RefusalError(403, "", "You do not have write access to this repository")
    give_token(call)


def give_token(call: HubHandler) -> None:
    if call.hub.xet is None:
        raise RefusalError(404, "", "This Hub has no xet storage")
    facts = {"casUrl": call.hub.xet.url, "accessToken": "xet", "exp": _expiry()}
    headers = {
        "X-Xet-Cas-Url": call.hub.xet.url,
        "X-Xet-Access-Token": "xet",
        "X-Xet-Token-Expiration": str(facts["exp"]),
    }
    call.answer_json(facts, headers)


def _expiry() -> int:
    return int(time.time()) + _TOKEN_S


def _files_of(shard: bytes) -> Iterator[XetFile]:
    """The files that a shard (version 2 of xet's metadata) describes: for each a header, the pieces it is made of, as
    many checksums of them, and its sha256, in entries of 48 bytes."""
    position = _SHARD_HEADER_BYTES
    while shard[position : position + 32] != _END:
        name = _hex(shard[position : position + 32])
        flags, num_pieces = struct.unpack_from("<II", shard, position + 32)
        pieces = range(position + _ENTRY_BYTES, position + (1 + num_pieces) * _ENTRY_BYTES, _ENTRY_BYTES)
        size = sum(struct.unpack_from("<I", shard, piece + 36)[0] for piece in pieces)
        position += (1 + num_pieces * (2 if flags & _HAS_CHECKS else 1)) * _ENTRY_BYTES
        sha256 = None
        if flags & _HAS_SHA256:
            sha256 = _hex(shard[position : position + 32])
            position += _ENTRY_BYTES
        yield XetFile(name, size, sha256)


def _hex(stored: bytes) -> str:
    """A hash as people write it: four numbers of 64 bits, kept with their lowest byte first."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", stored))


XET: tuple[Route, ...] = ((("GET",), rf"{API}/xet-(?P<right>read|write)-token/{REVISION}", token),)
