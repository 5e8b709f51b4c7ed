"""Checkpoints in a bucket or another machine's directory: whatever fsspec can write to.

Files of a checkpoint first, its manifest last: an upload that was killed leaves files that nobody picks. An object is
there whole or not at all on S3, GCS and in buckets of the Hub; a directory is made to be so by a rename.
"""

import base64
import hashlib
import json
import os
import re
import tempfile
import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ftl import bundletar
from ftl.contract import BUNDLE_TAR, MANIFEST_FILE, OUTPUT_DIR, UrlRef
from ftl.errors import Problem
from ftl.sources.remote import in_words, shown_address
from ftl.sources.retry import PassingError, UnreachableError
from ftl_runtime.checkpoint import manifest
from ftl_runtime.checkpoint.bandwidth import Rate
from ftl_runtime.checkpoint.bucketclient import open_system
from ftl_runtime.checkpoint.manifest import BrokenCheckpoint
from ftl_runtime.checkpoint.remote import BUNDLE_STAGE, OWNER_FILE, SupersededError, Told, check_room, owner_of
from ftl_runtime.checkpoint.store import Checkpoint
from ftl_runtime.checkpoint.volume import room_errors

_NAME = re.compile(r"checkpoint-(\d+)")
_PART = re.compile(r"\.[0-9a-f]{8}\.part$")


class BucketStore:
    """The RemoteStore of an address."""

    def __init__(self, ref: UrlRef, run_id: str, rate: Rate | None = None) -> None:
        self.label = f"{shown_address(ref.url).rstrip('/')}/{run_id}"
        self._run_id = run_id
        self._rate = rate
        self._url = f"{ref.url.rstrip('/')}/{run_id}"
        self._owner: str | None = None
        self._opened: tuple[Any, str] | None = None  # Any: fsspec ships no types

    def claim(self, owner: str) -> None:
        with _asked(self.label):
            self._claim(owner)

    def steps(self) -> list[int]:
        with _asked(self.label):
            system, root = self._open()
            try:
                paths = system.ls(root, detail=False)
            except FileNotFoundError:
                paths = []
            if not paths and _is_there(system, f"{root}/{OWNER_FILE}"):
                raise PassingError("its listing lacks what is there")  # "nothing" would be a fresh start
            matches = [_NAME.fullmatch(path.rstrip("/").rpartition("/")[2]) for path in paths]
            steps = sorted(int(match[1]) for match in matches if match)
            return [step for step in steps if _has_manifest(system, f"{root}/checkpoint-{step}")]

    def put(self, checkpoint: Checkpoint, drop: Collection[int], told: Told) -> None:
        with _asked(self.label):
            self._check_owner()
            system, root = self._open()
            self._upload(checkpoint.path, f"{root}/checkpoint-{checkpoint.step}", told)
            self._check_owner()  # what another attempt wrote meanwhile is the same, or found out by its manifest
            for step in drop:
                if step != checkpoint.step:
                    _remove(system, f"{root}/checkpoint-{step}")

    def fetch(self, step: int, dest: Path, told: Told) -> None:
        with _asked(self.label):
            system, root = self._open()
            place = f"{root}/checkpoint-{step}"
            content = _read_manifest(system, f"{place}/{MANIFEST_FILE}")
            files = manifest.parse(content)["files"]
            if wrong := _missing(system, place, files):
                raise BrokenCheckpoint(f"{wrong} is missing, or has another size than was written")
            total, done = sum(entry["size"] for entry in files.values()), 0
            check_room(dest, total)
            for relative, entry in files.items():
                target = dest / relative
                try:
                    with room_errors(dest.parent):  # here, while all else that fails is the other side's
                        target.parent.mkdir(parents=True, exist_ok=True)
                        system.get_file(f"{place}/{relative}", str(target))
                except FileNotFoundError as error:
                    raise BrokenCheckpoint(f"{relative} is missing") from error
                done += entry["size"]
                told(done, total)
            with room_errors(dest.parent):
                (dest / MANIFEST_FILE).write_bytes(content)

    def quarantine(self, step: int) -> None:
        with _asked(self.label):
            system, root = self._open()
            place = f"{root}/checkpoint-{step}/{MANIFEST_FILE}"
            if _is_there(system, place):
                system.mv(place, f"{place}.broken")

    def deliver(self, directory: Path, told: Told) -> str | None:
        with _asked(self.label):
            self._check_owner()
            _, root = self._open()
            self._upload(directory, f"{root}/{OUTPUT_DIR}", told)
            return None

    def keep_bundle(self, directory: Path, scratch: Path) -> None:
        with tempfile.TemporaryDirectory(dir=scratch, prefix=BUNDLE_STAGE) as folder:
            packed = Path(folder) / BUNDLE_TAR
            with _asked(self.label):
                self._check_owner()
                system, root = self._open()
                if not _is_there(system, f"{root}/{BUNDLE_TAR}"):
                    with room_errors(scratch):
                        bundletar.pack(directory, packed)
                    _copy(system, packed, f"{root}/{BUNDLE_TAR}", self._rate)

    def _open(self) -> tuple[Any, str]:  # Any: as above
        """The file system and the run's place in it."""
        if self._opened is None:
            self._opened = open_system(self._url)
        self._opened[0].invalidate_cache()  # that of the Hub remembers what others have changed meanwhile
        return self._opened

    def _claim(self, owner: str) -> None:
        system, root = self._open()
        _write(system, f"{root}/{OWNER_FILE}", json.dumps({"owner": owner}).encode())
        self._owner = owner

    def _check_owner(self) -> None:
        system, root = self._open()
        owner = owner_of(_read(system, f"{root}/{OWNER_FILE}"))
        if owner is None and self._owner is not None:
            self._claim(self._owner)  # somebody has tidied up
        elif owner != self._owner:
            raise SupersededError(
                f"{self.label}: another attempt of the run {self._run_id} writes there; this one has stopped"
            )

    def _upload(self, directory: Path, place: str, told: Told) -> None:
        """Everything that is not there yet as the manifest says, the manifest last, each looked up afterwards."""
        system, _ = self._open()
        sealed = (directory / MANIFEST_FILE).read_bytes()
        files = manifest.parse(sealed)["files"]
        if _read(system, f"{place}/{MANIFEST_FILE}") == sealed and not _missing(system, place, files):
            return
        if _is_local(system):
            _remove_parts(Path(place))
        total, done = sum(entry["size"] for entry in files.values()), 0
        for relative, entry in files.items():
            source = directory / relative
            size, digest = manifest.digest(source)
            if (size, digest) != (entry["size"], entry["sha256"]):
                raise BrokenCheckpoint(f"{relative} has changed since it was written")
            _copy(system, source, f"{place}/{relative}", self._rate)
            done += size
            told(done, total)
        if missing := _missing(system, place, files):
            raise PassingError(f"{missing} did not arrive whole")
        _write(system, f"{place}/{MANIFEST_FILE}", sealed)
        if _read(system, f"{place}/{MANIFEST_FILE}") != sealed:
            raise PassingError(f"{MANIFEST_FILE} did not arrive whole")


def _missing(system: Any, place: str, files: dict[str, Any]) -> str | None:  # Any: fsspec ships no types
    """The first file that is not there in its size, or whose checksum the other side tells, and is another."""
    for relative, entry in files.items():
        try:
            facts = system.info(f"{place}/{relative}")
        except FileNotFoundError:
            return str(relative)
        if facts.get("size") != entry["size"]:
            return str(relative)
    return None


def _copy(system: Any, source: Path, target: str, rate: Rate | None) -> None:  # Any: as above
    """One file, and afterwards what the other side knows of its content is compared with it."""
    if _is_local(system):
        with _settling(Path(target)) as staged:
            if rate is None:
                system.put_file(str(source), str(staged))
            else:
                rate.copy(source, staged)
        return
    if "hf" in _protocols(system):
        _copy_to_hub(system, source, target)
        return
    system.put_file(str(source), target)
    etag = str(system.info(target).get("ETag") or "").strip('"')
    md5 = system.info(target).get("md5Hash")  # GCS tells it in base64
    if re.fullmatch(r"[0-9a-f]{32}", etag) and etag != _md5(source).hexdigest():
        raise PassingError(f"{source.name} did not arrive whole")
    if md5 and md5 != base64.b64encode(_md5(source).digest()).decode():
        raise PassingError(f"{source.name} did not arrive whole")


def _copy_to_hub(system: Any, source: Path, target: str) -> None:  # Any: as above
    """The file itself: the file system would first write a copy of it, and leave it there when the upload fails."""
    from huggingface_hub import HfApi

    place = system.resolve_path(target)
    HfApi().batch_bucket_files(place.bucket_id, add=[(str(source), place.path)])
    system.invalidate_cache()


def _md5(path: Path) -> "hashlib._Hash":
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))


def _write(system: Any, path: str, data: bytes) -> None:  # Any: as above
    if _is_local(system):
        with _settling(Path(path)) as staged:
            staged.write_bytes(data)
    else:
        system.pipe_file(path, data)


@contextmanager
def _settling(target: Path) -> Iterator[Path]:
    """A place to write a file of a directory to. It is brought to its disk, then under its name; after an error it is
    gone, which a full disk needs more than anything."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staged = target.with_name(f"{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        yield staged
        fd = os.open(staged, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        staged.replace(target)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    manifest.sync_directory(target.parent)


def _remove_parts(place: Path) -> None:
    """What writers left there that were killed."""
    for path in place.rglob("*.part"):
        if _PART.search(path.name):
            path.unlink(missing_ok=True)


def _read_manifest(system: Any, path: str) -> bytes:  # Any: as above
    try:
        manifest.check_length(int(system.info(path)["size"]))
        return bytes(system.cat_file(path))
    except FileNotFoundError as error:
        raise BrokenCheckpoint(f"{MANIFEST_FILE} is missing") from error


def _read(system: Any, path: str) -> bytes | None:  # Any: as above
    try:
        return bytes(system.cat_file(path))
    except FileNotFoundError:
        return None


def _is_there(system: Any, path: str) -> bool:  # Any: as above
    """As `exists`, which takes a server that does not answer for a file that is not there."""
    try:
        system.info(path)
    except FileNotFoundError:
        return False
    return True


def _has_manifest(system: Any, place: str) -> bool:  # Any: as above
    """By its listing: a refused question about one file looks like a file that is not there."""
    try:
        paths = system.ls(place, detail=False)
    except FileNotFoundError:
        raise PassingError("its listing lacks what is there") from None
    return any(path.rpartition("/")[2] == MANIFEST_FILE for path in paths)


def _remove(system: Any, place: str) -> None:  # Any: as above
    """The manifest first: what is half removed is not picked."""
    if _is_there(system, f"{place}/{MANIFEST_FILE}"):
        system.rm_file(f"{place}/{MANIFEST_FILE}")
    if _is_there(system, place):
        system.rm(place, recursive=True)


def _is_local(system: Any) -> bool:  # Any: as above
    return "file" in _protocols(system)


def _protocols(system: Any) -> tuple[str, ...]:  # Any: as above
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)


@contextmanager
def _asked(label: str) -> Iterator[None]:
    """Failures of the other side as UnreachableError or ConfigError; ours pass."""
    broken: BrokenCheckpoint | None = None
    try:
        with in_words(Problem("checkpoints", label)):
            try:
                yield
            except BrokenCheckpoint as error:
                broken = error  # not the store's failure, whatever the error was that told of it
    except PassingError as error:
        raise UnreachableError(Problem("checkpoints", f"{label}: {error}")) from error
    if broken is not None:
        raise broken
