"""Rows of .json and .jsonl files, each with its file and line."""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from ftl.errors import ConfigError, Problem

SUFFIXES = (".jsonl", ".json", ".jsonl.gz", ".json.gz")
_OTHER_FORMATS = (".parquet", ".arrow", ".csv")


@dataclass(frozen=True)
class Row:
    """One object of a data file; `line` counts from 1 and is where the object begins."""

    path: Path
    line: int
    data: dict[str, Any]  # Any: the user's JSON

    @property
    def where(self) -> str:
        return f"{self.path}:{self.line}"


def data_files(path: Path) -> tuple[Path, ...]:
    """The file itself, or the data files of a directory in sorted order (its subdirectories are not read).

    Raises ConfigError when there is none.
    """
    if path.is_dir():
        files = tuple(file for file in sorted(path.iterdir()) if file.name.endswith(SUFFIXES) and file.is_file())
        if files:
            return files
        raise ConfigError(
            Problem(str(path), "a directory without data files", f"must hold {', '.join(SUFFIXES)} files")
        )
    if not path.exists():
        raise ConfigError(
            Problem(str(path), "no such file", remedy="correct `path`; it is relative to the config file")
        )
    if path.suffix in _OTHER_FORMATS:
        raise ConfigError(
            Problem(str(path), f"a {path.suffix} file", f"must be a {', '.join(SUFFIXES)} file; convert it")
        )
    return (path,)


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a data file, or of all data files of a directory. Raises ConfigError at the first broken one."""
    for row in scan_rows(path):
        if isinstance(row, Problem):
            raise ConfigError(row)
        yield row


def scan_rows(path: Path) -> Iterator[Row | Problem]:
    """As `read_rows`, with a Problem in the place of every broken row, reading on after it where that is possible."""
    for file in data_files(path):
        num_rows = 0
        for row in _scan_file(file):
            num_rows += 1
            yield row
        if not num_rows:
            yield Problem(str(file), "holds no rows", "must hold one JSON object a line, or a list of objects")


def _scan_file(path: Path) -> Iterator[Row | Problem]:
    try:
        with _open(path) as file:
            if ".jsonl" in path.suffixes or not _begins_with_list(file):
                yield from _scan_lines(path, file)
            else:
                yield from _scan_list(path, file.read())
    except (OSError, EOFError) as e:  # gzip reports a damaged archive as either
        yield Problem(str(path), f"cannot be read: {e}")


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _begins_with_list(file: BinaryIO) -> bool:
    start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    file.seek(0)
    return start.startswith(b"[")


def _scan_lines(path: Path, file: BinaryIO) -> Iterator[Row | Problem]:
    for number, raw in enumerate(file, start=1):
        where = f"{path}:{number}"
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            if line.strip():
                yield _check(path, number, json.loads(line), line)
        except UnicodeDecodeError as e:
            yield _not_utf8(where, e)
        except json.JSONDecodeError as e:
            given = f"not JSON at column {e.colno}: {e.msg}"
            yield Problem(where, given, "must be one JSON object on one line")


def _scan_list(path: Path, raw: bytes) -> Iterator[Row | Problem]:
    """The objects of one list, decoded one by one so that each has its line."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        line = raw.count(b"\n", 0, e.start) + 1
        yield _not_utf8(f"{path}:{line}", e)
        return
    decoder = json.JSONDecoder()
    line, seen = 1, 0
    position = _skip_space(text, text.index("[") + 1)
    while position < len(text) and text[position] != "]":
        line, seen = line + text.count("\n", seen, position), position
        try:
            value, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as e:
            yield Problem(
                f"{path}:{e.lineno}", f"not JSON at column {e.colno}: {e.msg}", "must be a list of JSON objects"
            )
            return
        yield _check(path, line, value, text[position:end])
        position = _skip_space(text, end)
        if position < len(text) and text[position] == ",":
            position = _skip_space(text, position + 1)
        elif position < len(text) and text[position] != "]":
            break
    if not text.startswith("]", position) or _skip_space(text, position + 1) != len(text):
        line = text.count("\n", 0, position) + 1
        yield Problem(
            f"{path}:{line}", "the list is broken here", "must be [ object, object, ... ] and nothing after it"
        )


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _check(path: Path, line: int, value: Any, source: str) -> Row | Problem:
    if not isinstance(value, dict):
        return Problem(
            f"{path}:{line}", f"{source.strip()[:40]} is not an object", "a row must be {...} with named columns"
        )
    if "\\ud" in source or "\\uD" in source:  # half a surrogate pair is JSON, and no text
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return Problem(
                f"{path}:{line}", "holds half of a \\ud... surrogate pair", "every text must be valid Unicode"
            )
    return Row(path, line, value)


def _not_utf8(where: str, error: UnicodeDecodeError) -> Problem:
    given = f"byte 0x{error.object[error.start]:02x} is not UTF-8"
    return Problem(where, given, remedy="save the file as UTF-8")
