"""Reads what wandb has written for itself: a log in blocks of 32 KiB, as LevelDB's, of protobuf records."""

from collections.abc import Iterator
from pathlib import Path

_BLOCK = 32768
_HEADER = 7
_FULL, _FIRST, _LAST = 1, 2, 4


def records(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    at, parts = _HEADER, []
    while at + _HEADER <= len(data):
        room = _BLOCK - at % _BLOCK
        if room < _HEADER:
            at += room
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts.append(data[at + _HEADER : at + _HEADER + size])
        at += _HEADER + size
        if kind in (_FULL, _LAST):
            yield b"".join(parts)
            parts = []
