"""What the Hub on loopback keeps: repositories with their commits, and how it names and lists files."""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["dataset", "model"]
Files = dict[str, bytes]

_LARGE_SUFFIXES = (".arrow", ".bin", ".distcp", ".gguf", ".parquet", ".pt", ".pth", ".safetensors")
_LARGE_BYTES = 10 * 2**20


@dataclass
class Repository:
    """A repository: every commit with its whole tree, and what the branches and tags point at."""

    kind: Kind
    id: str
    is_private: bool = False
    is_gated: bool = False
    """Its info is public; its files need a token that is in `readers`."""
    readers: frozenset[str] = frozenset()
    writers: frozenset[str] = frozenset()
    """Tokens that may push."""
    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    @property
    def files(self) -> Files:
        """The tree of the default branch."""
        return self.commits[self.refs["main"]]

    def commit_of(self, revision: str) -> str | None:
        """The commit of a branch, tag or (abbreviated) commit."""
        if revision in self.refs:
            return self.refs[revision]
        return next((commit for commit in self.commits if len(revision) >= 7 and commit.startswith(revision)), None)

    def commit(self, files: Files, branch: str = "main") -> str:
        """Make the tree `files` the newest of the branch; the commit's id."""
        tree = sorted((name, blob_id(content)) for name, content in files.items())
        content = [self.id, branch, self.refs.get(branch), tree]
        commit = hashlib.sha1(json.dumps(content).encode()).hexdigest()
        self.commits[commit] = dict(files)
        self.refs[branch] = commit
        return commit


def tree_of(files: Files, directory: str, is_recursive: bool) -> list[dict[str, Any]]:  # Any: JSON
    """The entries of a directory as the tree endpoint gives them."""
    prefix = f"{directory}/" if directory else ""
    entries: dict[str, dict[str, Any]] = {}
    for name, content in sorted(files.items()):
        if not name.startswith(prefix):
            continue
        *parents, _ = name.removeprefix(prefix).split("/")
        for depth in range(1, len(parents) + 1 if is_recursive else min(len(parents), 1) + 1):
            path = prefix + "/".join(parents[:depth])
            entries[path] = {"type": "directory", "oid": blob_id(path.encode()), "size": 0, "path": path}
        if is_recursive or not parents:
            entries[name] = {"type": "file", "oid": blob_id(content), "size": len(content), "path": name}
            if is_large(name, len(content)):
                entries[name]["lfs"] = {"oid": object_id(content), "size": len(content), "pointerSize": 134}
    return list(entries.values())


def is_large(name: str, size: int) -> bool:
    """Whether a file is kept by its sha256 (Git LFS) instead of in the commit."""
    return size > 0 and (name.endswith(_LARGE_SUFFIXES) or size > _LARGE_BYTES)


def etag_of(name: str, content: bytes) -> str:
    return object_id(content) if is_large(name, len(content)) else blob_id(content)


def blob_id(content: bytes) -> str:
    """The id that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def object_id(content: bytes) -> str:
    """The id that Git LFS gives a file."""
    return hashlib.sha256(content).hexdigest()
