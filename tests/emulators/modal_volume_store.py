"""The volumes of the emulated Modal: committed trees of content-addressed blocks, and the copies containers work on.

A container never sees a volume but a copy of what was committed when it started. What it writes there reaches others
only by `commit`, file by file: the last one to commit a file wins. A copy that is thrown away loses the rest.
"""

import hashlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from modal_proto import api_pb2 as api

BLOCK_BYTES = 8 * 1024 * 1024
EMPTY = hashlib.sha256(b"").digest()


@dataclass(frozen=True)
class Entry:
    """A file (blocks), a directory or a symbolic link (target) of a committed tree."""

    kind: "api.FileEntry.FileType.ValueType"
    mtime: int
    mode: int = 0o644
    size: int = 0
    blocks: tuple[bytes, ...] = ()
    """SHA-256 of each 8 MiB, without the zeros it may end with."""
    target: str = ""


@dataclass
class Volume:
    id: str
    name: str
    environment: str
    version: "api.VolumeFsVersion.ValueType"
    created_at: float
    tree: dict[str, Entry] = field(default_factory=dict)
    """Path without a leading slash -> what is committed there."""
    commits: int = 0


Stamp = tuple[int, int, int, int]
"""Of a file on disk: inode, size, time of change, mode."""


@dataclass
class Copy:
    """A volume as one container sees it."""

    volume: Volume
    directory: Path
    is_read_only: bool
    has_background_commits: bool
    base: dict[str, Stamp] = field(default_factory=dict)
    """What was there after the last commit or reload."""


class BlockStore:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.directory.mkdir(parents=True)
        self.uploaded_bytes = 0
        """By clients, over HTTP."""

    def has(self, sha256: bytes) -> bool:
        return sha256 == EMPTY or self.path(sha256).exists()

    def path(self, sha256: bytes) -> Path:
        return self.directory / sha256.hex()

    def put(self, content: bytes) -> bytes:
        """The hash of the content without its last zeros, which is kept."""
        content = content.rstrip(b"\0")
        sha256 = hashlib.sha256(content).digest()
        if not self.has(sha256):
            part = self.directory / f"{sha256.hex()}.part"
            part.write_bytes(content)
            part.rename(self.path(sha256))
        return sha256

    def get(self, sha256: bytes) -> bytes:
        return b"" if sha256 == EMPTY else self.path(sha256).read_bytes()

    def content(self, entry: Entry) -> bytes:
        left, parts = entry.size, []
        for sha256 in entry.blocks:
            parts.append(self.get(sha256).ljust(min(left, BLOCK_BYTES), b"\0"))
            left -= len(parts[-1])
        return b"".join(parts)


def make_copy(
    blocks: BlockStore,
    volume: Volume,
    directory: Path,
    *,
    sub_path: str = "",
    is_read_only: bool,
    has_background_commits: bool,
) -> Copy:
    """A copy on disk of what is committed; below `sub_path`, everything is kept in it all the same."""
    copy = Copy(volume, directory, is_read_only, has_background_commits)
    directory.mkdir(parents=True)
    if sub_path:
        (directory / sub_path.strip("/")).mkdir(parents=True, exist_ok=True)
    refresh(blocks, copy)
    return copy


def refresh(blocks: BlockStore, copy: Copy) -> None:
    """Make the copy what is committed. Files that have not changed are left as they are."""
    tree = copy.volume.tree
    here = _stamps(copy.directory)
    for path in sorted(here, reverse=True):
        entry = tree.get(path)
        if entry is None or (_kind(copy.directory / path) != entry.kind):
            _remove(copy.directory / path)
    for path in sorted(tree):
        _place(blocks, tree[path], copy.directory / path, is_same=here.get(path) == copy.base.get(path, ()))
    copy.base = _stamps(copy.directory)


def commit(blocks: BlockStore, copy: Copy) -> int:
    """The number of changes that reached the volume."""
    if copy.is_read_only:
        return 0
    here = _stamps(copy.directory)
    tree = copy.volume.tree
    changes = 0
    for path in set(copy.base) - set(here):
        changes += tree.pop(path, None) is not None
    for path, stamp in here.items():
        if copy.base.get(path) != stamp or path not in tree:
            entry = _read(blocks, copy.directory / path)
            if entry is not None:
                _add_parents(tree, path, entry.mtime)
                tree[path] = entry
                changes += 1
    copy.base = here
    copy.volume.commits += 1
    return changes


def put_entry(volume: Volume, path: str, entry: Entry) -> None:
    _add_parents(volume.tree, path, entry.mtime)
    volume.tree[path] = entry


def below(volume: Volume, path: str) -> list[str]:
    """The paths at and below it, sorted; the root's is empty."""
    return sorted(p for p in volume.tree if not path or p == path or p.startswith(path + "/"))


def open_inode_paths(copy: Copy) -> dict[tuple[int, int], str]:
    found = {}
    for path in ["", *_stamps(copy.directory)]:
        status = (copy.directory / path).lstat()
        found[status.st_dev, status.st_ino] = path
    return found


def _add_parents(tree: dict[str, Entry], path: str, mtime: int) -> None:
    for parent in PurePosixPath(path).parents:
        if str(parent) != "." and str(parent) not in tree:
            tree[str(parent)] = Entry(api.FileEntry.DIRECTORY, mtime, 0o755)


def _place(blocks: BlockStore, entry: Entry, where: Path, *, is_same: bool) -> None:
    if entry.kind == api.FileEntry.DIRECTORY:
        where.mkdir(exist_ok=True)
    elif entry.kind == api.FileEntry.SYMLINK:
        if not where.is_symlink() or str(where.readlink()) != entry.target:
            where.unlink(missing_ok=True)
            where.symlink_to(entry.target)
    elif not (is_same and where.exists() and _is_content(where, entry)):
        _remove(where)
        where.write_bytes(blocks.content(entry))
        where.chmod(entry.mode)
        os.utime(where, (entry.mtime, entry.mtime))


def _is_content(where: Path, entry: Entry) -> bool:
    return where.stat().st_size == entry.size and tuple(_hashes(where)) == entry.blocks


def _hashes(where: Path) -> list[bytes]:
    with where.open("rb") as f:
        blocks = iter(lambda: f.read(BLOCK_BYTES), b"")
        return [hashlib.sha256(b.rstrip(b"\0")).digest() for b in blocks]


def _read(blocks: BlockStore, where: Path) -> Entry | None:
    try:
        status = where.lstat()
        mtime, mode = int(status.st_mtime), status.st_mode & 0o777
        if where.is_symlink():
            return Entry(api.FileEntry.SYMLINK, mtime, mode, target=str(where.readlink()))
        if where.is_dir():
            return Entry(api.FileEntry.DIRECTORY, mtime, mode)
        if not where.is_file():  # a socket or a pipe, of which a volume knows nothing
            return None
        with where.open("rb") as f:
            contents = list(iter(lambda: f.read(BLOCK_BYTES), b""))
    except FileNotFoundError:  # the container has removed it in this moment
        return None
    size = sum(map(len, contents))
    return Entry(api.FileEntry.FILE, mtime, mode, size, tuple(map(blocks.put, contents)))


def _stamps(directory: Path) -> dict[str, Stamp]:
    found: dict[str, Stamp] = {}
    for root, directories, files in os.walk(directory):
        for name in (*directories, *files):
            path = Path(root) / name
            try:
                status = path.lstat()
            except FileNotFoundError:
                continue
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode)
            is_tree = path.is_dir() and not path.is_symlink()
            found[str(path.relative_to(directory))] = (status.st_ino, 0, 0, status.st_mode) if is_tree else stamp
    return found


def _kind(path: Path) -> "api.FileEntry.FileType.ValueType":
    if path.is_symlink():
        return api.FileEntry.SYMLINK
    return api.FileEntry.DIRECTORY if path.is_dir() else api.FileEntry.FILE


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
