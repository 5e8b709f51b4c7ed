"""Texts of rows that may hold pictures, kept beside their tokens until a batch is made of them.

How many tokens a picture takes is known once it is opened, so such a row is tokenised for good with its batch. Files of
an entry of the token cache: chats.bin, one JSON a row and the pictures that the rows themselves hold, and chats.npy.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ftl.formats.example import Example, Picture, Segment

_DATA, _OFFSETS = "chats.bin", "chats.npy"


class ChatWriter:
    """Writes the rows of an entry, one after another; no file where there are none."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: BinaryIO | None = None
        self._offsets: list[int] = []

    def add(self, example: Example) -> None:
        """A row: its pictures, then its JSON, whose place is told."""
        assert example.pictures is not None, "rows without are no chats"
        file = self._file = self._file or (self._directory / _DATA).open("wb")
        pictures: list[Any] = []  # Any: a path, or where the content stands
        for picture in example.pictures:
            if picture.content is not None:
                start = file.tell()
                file.write(picture.content)
                pictures.append([start, file.tell()])
            else:
                pictures.append(picture.path)
        segments = [[segment.text, segment.train] for segment in example.segments]
        start = file.tell()
        file.write(json.dumps({"segments": segments, "pictures": pictures}).encode())
        self._offsets += [start, file.tell()]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            np.save(self._directory / _OFFSETS, np.array(self._offsets, np.int64).reshape(-1, 2))


class Chats:
    """The rows that ChatWriter wrote."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __getitem__(self, number: int) -> Example:
        with (self._directory / _DATA).open("rb") as file:
            record = json.loads(_read(file, *self._spans[number].tolist()))
            pictures = [
                Picture(path=place) if isinstance(place, str) else Picture(content=_read(file, *place))
                for place in record["pictures"]
            ]
        segments = tuple(Segment(text, train) for text, train in record["segments"])
        return Example(segments, bos=False, num_eos=0, is_one_text=True, pictures=tuple(pictures))

    @cached_property
    def _spans(self) -> np.ndarray:
        offsets: np.ndarray = np.load(self._directory / _OFFSETS)
        return offsets


def _read(file: BinaryIO, start: int, stop: int) -> bytes:
    file.seek(start)
    return file.read(stop - start)
