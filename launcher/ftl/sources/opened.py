"""Data files by their ending: which type, compressed how, and their rows."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from ftl.errors import ConfigError, Problem
from ftl.sources.columnar import arrow_rows, count_parquet, parquet_rows
from ftl.sources.lines import TEXT_READERS
from ftl.sources.package import missing_package
from ftl.sources.row import Reading, Unread

READERS: dict[str, Callable[[BinaryIO, str], Iterator[Unread]]] = {
    **TEXT_READERS,
    "parquet": parquet_rows,
    "arrow": arrow_rows,
}
TYPES = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
    ".text": "text",
}


@dataclass(frozen=True)
class DataFile:
    """A file of rows on this machine."""

    path: Path
    name: str
    """What the user calls it."""
    type: str
    """A key of READERS."""

    def unread(self, reading: Reading) -> Iterator[Unread]:
        """Its rows. What stops it short goes to `reading.faults`."""
        try:
            with self._open() as (stream, share):
                reading.share_of_part = share
                yield from READERS[self.type](stream, self.name)
        except ConfigError as e:
            reading.faults += [problem for problem in e.problems if isinstance(problem, Problem)]

    def count(self) -> int | None:
        """The number of rows where the file says it."""
        if self.type != "parquet" or _opener(self.path):
            return None
        try:
            with self._open() as (stream, _):
                return count_parquet(stream)
        except ConfigError:  # reading it tells why
            return None

    @contextmanager
    def _open(self) -> Iterator[tuple[BinaryIO, Callable[[], float]]]:
        """The decompressed bytes, and how much of the file they have taken. Raises ConfigError for what is damaged."""
        opener = _opener(self.path)
        try:
            with self.path.open("rb") as raw:
                size = max(1, self.path.stat().st_size)
                yield opener(raw) if opener else raw, lambda: raw.tell() / size
        except _damaged(self.path) as e:
            raise ConfigError(Problem(self.name, f"cannot be read: {e}")) from e


def type_of(path: Path) -> str | None:
    """The type that the ending says, or None."""
    return TYPES.get((Path(path.stem) if _opener(path) else path).suffix.lower())


def is_of_type(type: str, ds_type: str) -> bool:
    """Whether a file of that type is what a `ds_type` means: json stands for lines too, csv for tabs too."""
    return type == ds_type or (type, ds_type) in {("jsonl", "json"), ("json", "jsonl"), ("tsv", "csv")}


def _opener(path: Path) -> Callable[[BinaryIO], BinaryIO] | None:
    return _OPENERS.get(path.suffix.lower())


def _damaged(path: Path) -> tuple[type[Exception], ...]:
    """What reading a broken file of that ending raises."""
    damaged = (OSError, EOFError, zlib.error, lzma.LZMAError)
    return (*damaged, _zstandard().ZstdError) if path.suffix.lower() == ".zst" else damaged


def _zstandard() -> Any:  # Any: a module
    try:
        import zstandard
    except ImportError as e:
        raise missing_package("path", "a .zst file needs 'zstandard'") from e
    return zstandard


def _zstd(raw: BinaryIO) -> BinaryIO:
    zstandard = _zstandard()
    return cast(BinaryIO, io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)))


_OPENERS: dict[str, Callable[[BinaryIO], BinaryIO]] = {
    ".gz": lambda raw: cast(BinaryIO, gzip.GzipFile(fileobj=raw)),
    ".bz2": lambda raw: cast(BinaryIO, bz2.BZ2File(raw)),
    ".xz": lambda raw: cast(BinaryIO, lzma.LZMAFile(raw)),  # noqa: SIM115
    ".zst": _zstd,
}
