"""Rows of parquet and arrow files, decoded a thousand at a time when the first of them is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from ftl.errors import ConfigError, Problem
from ftl.sources.row import Unread

if TYPE_CHECKING:
    import pyarrow

_CHUNK_ROWS = 1000


class Block:
    """Some rows of a columnar file that are decoded when they are wanted."""

    def __init__(self, columns: "pyarrow.RecordBatch | pyarrow.Table") -> None:
        self._columns = columns
        self._first = 0
        self._rows: list[dict[str, Any]] = []  # Any: the user's data

    def row(self, index: int) -> dict[str, Any]:
        """Row `index`; cheap when rows are asked for in order. Raises ValueError or OverflowError when it is broken."""
        if not self._first <= index < self._first + len(self._rows):
            first = index - index % _CHUNK_ROWS
            try:
                self._rows = self._columns.slice(first, _CHUNK_ROWS).to_pylist()
            except (ValueError, OverflowError):  # of any of them: this one may be whole
                only: dict[str, Any] = self._columns.slice(index, 1).to_pylist()[0]  # Any: the user's data
                return only
            self._first = first
        return self._rows[index - self._first]


class _RowGroup:
    """A row group of a parquet file that is read when one of its rows is wanted."""

    def __init__(self, file: Any, group: int, name: str) -> None:  # Any: pyarrow ships no types
        self._file, self._group, self._name = file, group, name
        self._block: Block | Problem | None = None

    def row(self, index: int) -> dict[str, Any] | Problem:  # Any: the user's data
        if self._block is None:
            self._block = self._read()
        return self._block if isinstance(self._block, Problem) else self._block.row(index)

    def _read(self) -> Block | Problem:
        import pyarrow

        try:
            return Block(self._file.read_row_group(self._group, use_threads=False))
        except (pyarrow.ArrowException, OSError) as e:
            return _broken(self._name, e)


def parquet_rows(stream: BinaryIO, name: str) -> Iterator[Unread]:
    """The rows in order; a row group that no row is wanted of is not read."""
    import pyarrow.parquet

    with _told_as_problem(name):
        file = pyarrow.parquet.ParquetFile(stream)
    number = 0
    for index in range(file.num_row_groups):
        group = _RowGroup(file, index, name)
        for row in range(file.metadata.row_group(index).num_rows):
            number += 1
            where = f"{name}:{number}"
            yield Unread(where, partial(_row, group, row, where))


def arrow_rows(stream: BinaryIO, name: str) -> Iterator[Unread]:
    """The rows of an IPC file or stream in order."""
    number = 0
    with _told_as_problem(name):
        for batch in _batches(stream):
            block = Block(batch)
            for row in range(batch.num_rows):
                number += 1
                where = f"{name}:{number}"
                yield Unread(where, partial(_row, block, row, where))


def count_parquet(stream: BinaryIO) -> int:
    """The number of rows, from the end of the file alone."""
    import pyarrow.parquet

    with _told_as_problem("parquet"):
        return int(pyarrow.parquet.read_metadata(stream).num_rows)


def _row(rows: Block | _RowGroup, index: int, where: str) -> dict[str, Any] | Problem:  # Any: the user's data
    """The row, or what is wrong with its bytes: text that is not UTF-8, a date that no calendar has."""
    try:
        return rows.row(index)
    except (ValueError, OverflowError) as e:
        return _broken(where, e)


@contextmanager
def _told_as_problem(name: str) -> Iterator[None]:
    """Raises ConfigError for what pyarrow says of a broken file."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError) as e:
        raise ConfigError(_broken(name, e)) from e


def _broken(name: str, error: Exception) -> Problem:
    return Problem(name, f"cannot be read: {str(error).partition(chr(10))[0]}")


def _batches(stream: BinaryIO) -> "Iterator[pyarrow.RecordBatch]":
    import pyarrow

    if stream.read(6) == b"ARROW1":
        file = pyarrow.ipc.open_file(stream)
        yield from (file.get_batch(index) for index in range(file.num_record_batches))
    else:
        stream.seek(0)
        yield from pyarrow.ipc.open_stream(stream)
