"""A small Hugging Face Hub on loopback, for the real huggingface_hub and datasets clients.

    with HubServer() as hub:
        commit = hub.add("dataset", "org/rows", {"train.jsonl": b"..."})
        hub.accounts["hf_ann"] = {"name": "ann", "auth": {"accessToken": {"role": "write"}}}
        ...                                    # clients started with HF_ENDPOINT=hub.url and HF_HUB_DISABLE_XET=1
        hub.fail(503, times=2, path="/resolve/", headers={"Retry-After": "1"})
        hub.disturb("reset", times=1, path="/_objects/")      # see hub_faults.py

Repositories are kept in memory: each `add` is a commit on a branch, and so is each upload by a client. README.md in
this directory tells what is served; what is not is a 404, and listed in `hub.requests` like everything else.
"""

import argparse
import contextlib
import json
import sys
import threading
from pathlib import Path
from typing import Any

from faulty_server import FaultyServer
from hub_buckets import BUCKETS, Bucket
from hub_handler import HubHandler
from hub_objects import Objects
from hub_reading import READING
from hub_repository import Files, Kind, Repository, object_id
from hub_upload import UPLOAD
from hub_xet import XET, XetStorage


class HubServer(FaultyServer):
    """Serves from its construction to `close`; `url` is its HF_ENDPOINT.

    `storage` is a directory for the large files, which are in memory otherwise; `xet` one that clients of xet write to
    (without it they need HF_HUB_DISABLE_XET=1). Larger files than `part_bytes` are uploaded in parts of that size. With
    `has_cdn` large files are got from another host name, by a redirect.
    """

    def __init__(
        self,
        *,
        storage: Path | None = None,
        xet: Path | None = None,
        part_bytes: int | None = None,
        has_cdn: bool = False,
        port: int = 0,
    ) -> None:
        self.repositories: dict[tuple[Kind, str], Repository] = {}
        self.buckets: dict[str, Bucket] = {}
        self.objects = Objects(storage)
        """Large files that were uploaded, by their sha256."""
        self.parts: dict[tuple[str, int], bytes] = {}
        """Parts of files that are not whole yet, by the file's sha256 and their number from 1."""
        self.xet = XetStorage(xet) if xet else None
        self.part_bytes = part_bytes
        self.has_cdn = has_cdn
        self.quota_bytes: int | None = None
        """What all large files together may have."""
        self.accounts: dict[str | None, Any] = {}  # Any: JSON
        """Token -> what the Hub says of whose it is."""
        self.lock = threading.Lock()
        """Held while a repository is made or changed."""
        super().__init__(HubHandler, {"hub": self, "routes": (*READING, *UPLOAD, *XET, *BUCKETS)}, port)

    def add(
        self,
        kind: Kind,
        id: str,
        files: Files,
        *,
        branch: str = "main",
        is_private: bool = False,
        is_gated: bool = False,
        readers: tuple[str, ...] = (),
        writers: tuple[str, ...] = (),
    ) -> str:
        """Commit the tree `files` to `branch`; the commit's id. The repository is made if it is not there."""
        repository = self.repositories.setdefault((kind, id), Repository(kind, id))
        repository.is_private, repository.is_gated = is_private, is_gated
        repository.readers, repository.writers = frozenset(readers), frozenset(writers)
        return repository.commit(files, branch)

    def content(self, oid: str) -> bytes | None:
        """The large file of that sha256, whichever way it was uploaded."""
        if oid not in self.objects and self.xet is not None and (file := self.xet.find(sha256=oid)):
            self.objects[oid] = self.xet.read(file)
        return self.objects.get(oid)

    def fsck(self) -> list[str]:
        """What is wrong with what is kept, a sentence each: contents that are not what their sha256 says, and manifests
        of checkpoints in the newest commits that list what is not there."""
        found = [
            f"object {oid} has other content" for oid, content in self.objects.items() if object_id(content) != oid
        ]
        for repository in self.repositories.values():
            for branch, commit in repository.refs.items():
                files = repository.commits[commit]
                for name, content in files.items():
                    if name.endswith("/manifest.json") and (wrong := _wrong(name.rpartition("/")[0], content, files)):
                        found.append(f"{repository.id}@{branch}: {name}: {wrong}")
        return found


def _wrong(directory: str, manifest: bytes, files: Files) -> str | None:
    for name, entry in json.loads(manifest)["files"].items():
        content = files.get(f"{directory}/{name}")
        if content is None:
            return f"{name} is missing"
        if object_id(content) != entry["sha256"]:
            return f"{name} has other content"
    return None


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="a free one if 0")
    parser.add_argument("--token", default="hf_test", help="the token that may write")
    parser.add_argument("--account", default="test", help="whose token it is")
    parser.add_argument("--storage", type=Path, help="an empty directory for large files")
    parser.add_argument("--xet", type=Path, help="a directory that clients of xet write to")
    parser.add_argument("--part-bytes", type=int, help="larger files are uploaded in parts of that size")
    given = parser.parse_args()
    with HubServer(storage=given.storage, xet=given.xet, part_bytes=given.part_bytes, port=given.port) as hub:
        hub.accounts[given.token] = {"name": given.account, "auth": {"accessToken": {"role": "write"}}}
        xet = "" if given.xet else " HF_HUB_DISABLE_XET=1"
        sys.stdout.write(f"HF_ENDPOINT={hub.url} HF_TOKEN={given.token}{xet}\n")
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
