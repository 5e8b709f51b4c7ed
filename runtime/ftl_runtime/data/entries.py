"""Directories named by all that decides what is in them: whole or absent, whoever writes them and whatever kills it.

Any number of processes may write the same entry at once; the first one to finish gives it its name. An entry's
manifest.json is written last and holds the size of every other file.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftl.errors import ConfigError, Problem

_MANIFEST = "manifest.json"
_LOCK = "writer.lock"
_YOUNG_S = 60.0
"""A directory younger than this may not have its lock yet."""
_OLD_S = 24 * 3600.0
"""Older than this it is dead, also where a file system has no locks."""


@dataclass(frozen=True)
class Entry:
    directory: Path
    facts: dict[str, Any]  # Any: JSON, whatever the writer wants to say
    was_there: bool
    """It was found; nothing was written."""


def entry(cache_dir: Path, key: str, write: Callable[[Path], dict[str, Any]]) -> Entry:  # Any: as in Entry
    """The entry of this key. If it is absent or damaged, `write` fills a directory with it and gives its facts."""
    directory = cache_dir / key
    found = _open(directory)
    if found is not None:
        return Entry(directory, found, was_there=True)
    cache_dir.mkdir(parents=True, exist_ok=True)
    _collect(cache_dir)
    temporary = Path(tempfile.mkdtemp(prefix=f"{key}.", suffix=".tmp", dir=cache_dir))
    try:
        with _locked(temporary / _LOCK):
            facts = write(temporary)
            (temporary / _LOCK).unlink()
            _seal(temporary, facts)
            _publish(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    found = _open(directory)
    assert found is not None, f"{directory} vanished while it was being read"
    return Entry(directory, found, was_there=False)


def _open(directory: Path) -> dict[str, Any] | None:  # Any: as in Entry
    """The facts of a whole entry."""
    try:
        manifest = json.loads((directory / _MANIFEST).read_text())
        is_whole = all((directory / name).stat().st_size == size for name, size in manifest["bytes"].items())
        facts: dict[str, Any] = manifest["facts"]  # Any: as in Entry
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return facts if is_whole else None


def _seal(directory: Path, facts: dict[str, Any]) -> None:  # Any: as in Entry
    """Everything to disk, then the manifest: after a crash of the machine too, no manifest vouches for lost bytes."""
    files = sorted(directory.iterdir())
    for file in files:
        _sync(file)
    manifest = {"bytes": {file.name: file.stat().st_size for file in files}, "facts": facts}
    (directory / _MANIFEST).write_text(json.dumps(manifest))
    _sync(directory / _MANIFEST)


def _publish(temporary: Path, directory: Path) -> None:
    """Gives the finished entry its name, unless another process was first; a broken entry makes way."""
    for _ in range(10):
        try:
            temporary.rename(directory)
            return
        except OSError:
            if _open(directory) is not None:
                return
            broken = Path(tempfile.mkdtemp(suffix=".broken", dir=directory.parent))
            try:
                directory.rename(broken / "entry")
            except FileNotFoundError:
                pass  # another process has just moved it
            finally:
                shutil.rmtree(broken, ignore_errors=True)
    raise ConfigError(Problem(str(directory), "cannot be replaced", remedy="remove this directory of the token cache"))


def _collect(cache_dir: Path) -> None:
    """Remove what writers left that were killed: the kernel has let go of their locks."""
    for leftover in (*cache_dir.glob("*.tmp"), *cache_dir.glob("*.broken")):
        with contextlib.suppress(OSError):
            age_s = time.time() - leftover.stat().st_mtime
            if age_s > _OLD_S or (leftover.suffix == ".tmp" and age_s > _YOUNG_S and _is_unlocked(leftover / _LOCK)):
                shutil.rmtree(leftover, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds a lock for as long as this process lives, or the block."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        with contextlib.suppress(OSError):  # a file system without locks; leftovers then go by their age
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(fd)


def _is_unlocked(path: Path) -> bool:
    """Raises OSError where that cannot be told."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    finally:
        os.close(fd)
    return True


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
