"""The large files that the Hub on loopback keeps, by their sha256: in memory, or on a disk that can be full."""

import contextlib
import errno
from collections.abc import Iterator, MutableMapping
from pathlib import Path


class FullError(Exception):
    """There is no room for the content."""


class Objects(MutableMapping[str, bytes]):
    """sha256 -> content. Setting one raises FullError where the disk has no room, and keeps nothing of it then."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._memory: dict[str, bytes] = {}

    def __getitem__(self, oid: str) -> bytes:
        if self._directory is None:
            return self._memory[oid]
        try:
            return (self._directory / oid).read_bytes()
        except FileNotFoundError as error:
            raise KeyError(oid) from error

    def __setitem__(self, oid: str, content: bytes) -> None:
        if self._directory is None:
            self._memory[oid] = content
            return
        staged = self._directory / f".{oid}"
        try:
            staged.write_bytes(content)
            staged.replace(self._directory / oid)
        except OSError as error:
            with contextlib.suppress(OSError):
                staged.unlink()
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise FullError from error

    def __delitem__(self, oid: str) -> None:
        if self._directory is None:
            del self._memory[oid]
        else:
            (self._directory / oid).unlink()

    def __iter__(self) -> Iterator[str]:
        names = [path.name for path in self._directory.iterdir()] if self._directory else self._memory
        return iter([name for name in names if not name.startswith(".")])

    def __len__(self) -> int:
        return len(list(iter(self)))
