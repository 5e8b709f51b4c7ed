"""The manifest of a directory: every file in it with size and sha256. Written last, it makes the directory whole."""

import contextlib
import hashlib
import json
import os
import stat
from pathlib import Path, PurePosixPath
from typing import Any

from ftl.contract import MANIFEST_FILE

VERSION = 1
_MAX_BYTES = 64 << 20
"""Of a manifest. What a foreign one may ask for; a model of thousands of billions of weights, in shards of a thousand
ranks, stays far from each bound."""
_MAX_FILES = 100_000
_MAX_TOTAL_BYTES = 1 << 50
_MAX_PATH = 1024
_MAX_NAME = 255
"""Bytes of one name, as file systems have it."""
_CHUNK = 1 << 20


class BrokenCheckpoint(Exception):  # noqa: N818 - a state of the disk, not a mistake
    """The directory is not what its manifest says; the message is the reason, without the directory."""


def seal(directory: Path, *, run_id: str, step: int) -> None:
    """Write the manifest of what is in `directory` and bring all of it to the disk, file by file, then the directories.

    Raises OSError; ValueError for a symlink or anything else that is not a plain file or directory.
    """
    files: dict[str, dict[str, Any]] = {}  # Any: size is an int, sha256 a str
    for relative in _plain_files(directory):
        path = directory / relative
        size, sha256 = digest(path, sync=True)
        files[relative] = {"size": size, "sha256": sha256}
    content = {"version": VERSION, "run_id": run_id, "step": step, "files": files}
    write_synced(directory / MANIFEST_FILE, json.dumps(content, indent=1, sort_keys=True).encode())
    for folder in [path for path in directory.rglob("*") if path.is_dir()]:
        sync_directory(folder)
    sync_directory(directory)


def check(directory: Path, *, run_id: str | None, step: int | None) -> int:
    """Compare every byte in `directory` with its manifest; gives the number of bytes.

    `run_id` None takes a checkpoint of any run, `step` None of any step. Raises BrokenCheckpoint with the reason.
    """
    if directory.is_symlink():
        raise BrokenCheckpoint("it is a symlink")
    content = _read_manifest(directory)
    if run_id is not None and content["run_id"] != run_id:
        raise BrokenCheckpoint(f"it belongs to the run {content['run_id']!r}")
    if step is not None and content["step"] != step:
        raise BrokenCheckpoint(f"its manifest is that of step {content['step']}")
    files = content["files"]
    try:
        present = set(_plain_files(directory)) - {MANIFEST_FILE}
    except (OSError, ValueError) as error:
        raise BrokenCheckpoint(str(error)) from error
    if surplus := sorted(present - set(files)):
        raise BrokenCheckpoint(f"{surplus[0]} is not in its manifest")
    for relative, expected in files.items():
        if relative not in present:
            raise BrokenCheckpoint(f"{relative} is missing")
        try:
            size = (directory / relative).stat().st_size
            if size != expected.get("size"):
                raise BrokenCheckpoint(f"{relative} has {size} bytes where {expected.get('size')} were written")
            sha256 = digest(directory / relative)[1]
        except OSError as error:
            raise BrokenCheckpoint(f"{relative} cannot be read: {error.strerror}") from error
        if sha256 != expected.get("sha256"):
            raise BrokenCheckpoint(f"{relative} has changed since it was written")
    return sum(int(expected["size"]) for expected in files.values())


def step_of(directory: Path) -> int:
    """The step its manifest names. Raises BrokenCheckpoint."""
    return int(_read_manifest(directory)["step"])


def size_of(directory: Path) -> int:
    """Bytes that its manifest lists. Raises BrokenCheckpoint."""
    return sum(int(entry["size"]) for entry in _read_manifest(directory)["files"].values())


def write_synced(path: Path, data: bytes) -> None:
    """Write a file and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_synced(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one step: readers see the old file or the whole new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    write_synced(temporary, data)
    temporary.replace(path)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Bring a directory's entries (creations, renames) to the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def parse(data: bytes) -> dict[str, Any]:  # Any: JSON, checked here
    """What a manifest says: run_id, step, and for each file its size and sha256. Raises BrokenCheckpoint."""
    check_length(len(data))
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BrokenCheckpoint(f"{MANIFEST_FILE} cannot be read") from error
    if not isinstance(content, dict) or content.get("version") != VERSION or not isinstance(content.get("step"), int):
        raise BrokenCheckpoint(f"{MANIFEST_FILE} is not a manifest of version {VERSION}")
    files = content.get("files")
    if not isinstance(content.get("run_id"), str) or not isinstance(files, dict) or not files:
        raise BrokenCheckpoint(f"{MANIFEST_FILE} lists no files")
    if len(files) > _MAX_FILES:
        raise BrokenCheckpoint(f"{MANIFEST_FILE} lists {len(files)} files, and {_MAX_FILES} at most are believed")
    for relative, entry in files.items():
        if not isinstance(entry, dict) or not _is_size(entry.get("size")) or not isinstance(entry.get("sha256"), str):
            raise BrokenCheckpoint(f"{MANIFEST_FILE} lists files without size and sha256")
        if not _is_confined(relative):
            raise BrokenCheckpoint(f"its manifest names {_shown(relative)}, which is not a plain path inside it")
    for relative in files:
        if inside := next((str(folder) for folder in PurePosixPath(relative).parents if str(folder) in files), None):
            raise BrokenCheckpoint(f"its manifest names {_shown(inside)}, as a file and as a directory")
    total = sum(entry["size"] for entry in files.values())
    if total > _MAX_TOTAL_BYTES:
        raise BrokenCheckpoint(f"{MANIFEST_FILE} lists {total} bytes, and {_MAX_TOTAL_BYTES} at most are believed")
    return content


def check_length(num_bytes: int) -> None:
    """Raises BrokenCheckpoint where a manifest is longer than any that is believed; to be asked before it is read."""
    if num_bytes > _MAX_BYTES:
        raise BrokenCheckpoint(f"{MANIFEST_FILE} has {num_bytes} bytes, and {_MAX_BYTES} at most are believed")


def _shown(relative: str) -> str:
    return repr(relative) if len(relative) <= _MAX_NAME else f"{relative[:_MAX_NAME]!r}..."


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _read_manifest(directory: Path) -> dict[str, Any]:  # Any: as above
    path = directory / MANIFEST_FILE
    if path.is_symlink():
        raise BrokenCheckpoint(f"{MANIFEST_FILE} is a symlink")
    try:
        return parse(path.read_bytes())
    except FileNotFoundError as error:
        raise BrokenCheckpoint(f"{MANIFEST_FILE} is missing") from error
    except OSError as error:
        raise BrokenCheckpoint(f"{MANIFEST_FILE} cannot be read") from error


def _plain_files(directory: Path) -> list[str]:
    """Relative paths of all files below, sorted. ValueError for anything that is neither file nor directory."""
    found = []
    for path in sorted(directory.rglob("*")):
        mode = path.lstat().st_mode
        relative = path.relative_to(directory).as_posix()
        if stat.S_ISREG(mode):
            found.append(relative)
        elif not stat.S_ISDIR(mode):
            raise ValueError(f"{relative} is a symlink or a special file")
    return found


def _is_confined(relative: str) -> bool:
    path = PurePosixPath(relative)
    is_plain = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    is_short = len(relative) <= _MAX_PATH and all(
        len(part.encode(errors="replace")) <= _MAX_NAME for part in path.parts
    )
    return is_plain and is_short and "\\" not in relative and relative == str(path) and relative.isprintable()


def digest(path: Path, *, sync: bool = False) -> tuple[int, str]:
    """Size and sha256. With `sync` the file is on the disk afterwards and out of the cache, so that reading it back
    reads the disk."""
    sha256 = hashlib.sha256()
    size = 0
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        if sync:
            os.fsync(fd)
        while chunk := os.read(fd, _CHUNK):
            sha256.update(chunk)
            size += len(chunk)
        if sync and hasattr(os, "posix_fadvise"):
            with contextlib.suppress(OSError):  # only advice: some file systems have none to take
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)
    return size, sha256.hexdigest()
