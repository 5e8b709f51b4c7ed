"""Rows of text files: JSON lines, JSON lists, CSV, plain lines."""

import csv
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, BinaryIO

from ftl.errors import ConfigError, Problem
from ftl.sources.row import Unread

_BOM = b"\xef\xbb\xbf"
MAX_LINE_BYTES = 64 * 2**20
"""Of one line, one object of a JSON list and one cell of a CSV: a text becomes some fifty times as much in memory."""
_HEAD_BYTES = 1024  # a whole list may be one line
Decoded = dict[str, Any] | Problem  # Any: the user's data


def json_rows(stream: BinaryIO, name: str) -> Iterator[Unread]:
    """The objects of a list, or one object a line; `where` is the line on which an object begins."""
    begin = b""
    while not begin and (raw := stream.readline(_HEAD_BYTES)):
        begin = raw.removeprefix(_BOM).strip()
    stream.seek(0)
    if begin.startswith(b"["):
        return _list_rows(stream.read(), name)
    if begin == b"{":
        raise ConfigError(
            Problem(name, "holds one object over several lines", "must be a list of objects, or one object on a line")
        )
    return jsonl_rows(stream, name)


def jsonl_rows(stream: BinaryIO, name: str) -> Iterator[Unread]:
    """One object a line; empty lines are none."""
    for number, line in _lines(stream):
        where = f"{name}:{number}"
        if line is None:
            yield Unread(where, partial(_too_long, where))
        elif not line.isspace() and line:
            yield Unread(where, partial(_object, line, where))


def text_rows(stream: BinaryIO, name: str) -> Iterator[Unread]:
    """Each line is a row {"text": line}; empty lines are none."""
    for number, line in _lines(stream):
        where = f"{name}:{number}"
        if line is None:
            yield Unread(where, partial(_too_long, where))
        elif not line.isspace() and line:
            yield Unread(where, partial(_text, line, where))


def csv_rows(stream: BinaryIO, name: str, delimiter: str = ",") -> Iterator[Unread]:
    """The rows below the header line. Every cell is text, an empty one the empty text."""
    broken: dict[int, Problem] = {}
    cells = csv.reader(_decoded(stream, name, broken), delimiter=delimiter, strict=True)
    csv.field_size_limit(MAX_LINE_BYTES)  # whole documents are put into a cell
    header = next(_csv_lines(cells, name), (1, []))[1]
    _check_header(header, name)
    for line, row in _csv_lines(cells, name):
        where = f"{name}:{line}"
        fault = next((broken[n] for n in range(line, cells.line_num + 1) if n in broken), None)
        yield Unread(where, partial(_csv_row, header, row, where, fault))


def tsv_rows(stream: BinaryIO, name: str) -> Iterator[Unread]:
    """As `csv_rows`, with tabs between the cells."""
    return csv_rows(stream, name, "\t")


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """The lines by number, from 1, without a byte order mark; None for one that is too long, which is read past."""
    number = 0
    while raw := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(raw) <= MAX_LINE_BYTES:
            yield number, raw.removeprefix(_BOM) if number == 1 else raw
            continue
        while raw and not raw.endswith(b"\n"):
            raw = stream.readline(MAX_LINE_BYTES)
        yield number, None


def _too_long(where: str) -> Problem:
    remedy = "split the row, or leave it out"
    return Problem(where, f"is longer than {MAX_LINE_BYTES // 2**20} MiB", "a row must be shorter", remedy)


def _object(line: bytes, where: str) -> Decoded:
    try:
        text = line.rstrip().decode()
        return _checked(json.loads(text), text, where)
    except UnicodeDecodeError as e:
        return _not_utf8(where, e)
    except json.JSONDecodeError as e:
        return Problem(where, f"not JSON at column {e.colno}: {e.msg}", "must be one JSON object on one line")
    except (ValueError, RecursionError) as e:
        return _not_readable(where, e)


def _list_rows(raw: bytes, name: str) -> Iterator[Unread]:
    """The objects of one list, decoded one by one so that each has its line. Raises ConfigError where it breaks."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        raise ConfigError(_not_utf8(f"{name}:{raw.count(10, 0, e.start) + 1}", e)) from e
    decoder = json.JSONDecoder()
    line, seen = 1, 0
    position = _skip_space(text, text.index("[") + 1)
    while position < len(text) and text[position] != "]":
        line, seen = line + text.count("\n", seen, position), position
        try:
            value, end = decoder.raw_decode(text, position)
        except json.JSONDecodeError as e:
            given = f"not JSON at column {e.colno}: {e.msg}"
            raise ConfigError(Problem(f"{name}:{e.lineno}", given, "must be a list of JSON objects")) from e
        except (ValueError, RecursionError) as e:
            raise ConfigError(_not_readable(f"{name}:{line}", e)) from e
        where = f"{name}:{line}"
        if end - position > MAX_LINE_BYTES:
            yield Unread(where, partial(_too_long, where))
        else:
            yield Unread(where, partial(_checked, value, text[position:end], where))
        position = _skip_space(text, end)
        if position < len(text) and text[position] == ",":
            position = _skip_space(text, position + 1)
        elif position < len(text) and text[position] != "]":
            break
    if not text.startswith("]", position) or _skip_space(text, position + 1) != len(text):
        where = f"{name}:{text.count(chr(10), 0, position) + 1}"
        raise ConfigError(Problem(where, "the list is broken here", "must be [ object, object, ... ], nothing after"))


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _checked(value: Any, source: str, where: str) -> Decoded:  # Any: what JSON holds
    if not isinstance(value, dict):
        return Problem(where, f"{source.strip()[:40]} is not an object", "a row must be {...} with named columns")
    if "\\ud" in source or "\\uD" in source:  # half a surrogate pair is JSON, and no text
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return Problem(where, "holds half of a \\ud... surrogate pair", "every text must be valid Unicode")
    return value


def _text(line: bytes, where: str) -> Decoded:
    try:
        return {"text": line.decode().rstrip("\r\n")}
    except UnicodeDecodeError as e:
        return _not_utf8(where, e)


def _decoded(stream: BinaryIO, name: str, broken: dict[int, Problem]) -> Iterator[str]:
    """The lines as text; what is wrong with one goes to `broken` under its number."""
    for number, raw in _lines(stream):
        if raw is None:
            raise ConfigError(_too_long(f"{name}:{number}"))
        try:
            yield raw.decode()
        except UnicodeDecodeError as e:
            broken[number] = _not_utf8(f"{name}:{number}", e)
            yield raw.decode(errors="replace")


def _csv_lines(cells: Any, name: str) -> Iterator[tuple[int, list[str]]]:  # Any: csv.reader has no public type
    """Each row that is not empty, with the line on which it begins."""
    while True:
        line = cells.line_num + 1
        try:
            row = next(cells)
        except StopIteration:
            return
        except csv.Error as e:
            raise ConfigError(Problem(f"{name}:{line}", f"not CSV: {e}", remedy="check the quotes from here on")) from e
        if row:
            yield line, row


def _check_header(header: list[str], name: str) -> None:
    if not all(header) or len(set(header)) < len(header):
        given = f"the header has the columns {', '.join(map(repr, header)) or 'none'}"
        raise ConfigError(Problem(f"{name}:1", given, "must name every column, each once"))


def _csv_row(header: list[str], cells: list[str], where: str, fault: Problem | None) -> Decoded:
    if fault:
        return fault
    if len(cells) != len(header):
        return Problem(where, f"{len(cells)} cells", f"must have {len(header)}, as the header")
    return dict(zip(header, cells, strict=True))


def _not_readable(where: str, error: Exception) -> Problem:
    """JSON that Python does not read."""
    what = "is nested too deeply" if isinstance(error, RecursionError) else "holds a number with too many digits"
    return Problem(where, what)


def _not_utf8(where: str, error: UnicodeDecodeError) -> Problem:
    given = f"byte 0x{error.object[error.start]:02x} is not UTF-8"
    return Problem(where, given, remedy="save the file as UTF-8")


TEXT_READERS: dict[str, Callable[[BinaryIO, str], Iterator[Unread]]] = {
    "json": json_rows,
    "jsonl": jsonl_rows,
    "csv": csv_rows,
    "tsv": tsv_rows,
    "text": text_rows,
}
