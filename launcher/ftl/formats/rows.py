"""Columns of a row as texts, with errors that name what the row has."""

import string
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from ftl.formats.example import RowError

Row = Mapping[str, Any]  # Any: a row is the user's JSON object


def fill(template: str, row: Row, *, required: bool) -> str:
    """`template` with each {column} replaced. Where not required, an absent or null column is an empty text.

    What a column holds is put there as it is: braces in it mean nothing.
    """
    parts = []
    for literal, column in pieces(template):
        parts.append(literal)
        if column is not None:
            parts.append(text_of(row, column) if required or row.get(column) is not None else "")
    return "".join(parts)


@lru_cache
def pieces(template: str) -> tuple[tuple[str, str | None], ...]:
    """The texts of a template, each with the {column} after it. Raises RowError unless it is that simple.

    A {column.attribute}, {column[0]}, {column!r} or {column:>8} would be a program; a template is none.
    """
    try:
        parsed = tuple(string.Formatter().parse(template))
    except ValueError as e:
        raise RowError(f"{shorten(template)} has a brace without its partner: write {{{{ and }}}} for braces") from e
    for _, name, spec, conversion in parsed:
        if name is not None and (not name.isidentifier() or spec or conversion):
            raise RowError(f"{shorten(template)}: must hold plain names in braces, such as {{instruction}}")
    return tuple((literal, name) for literal, name, _, _ in parsed)


def text_of(row: Row, column: str, remedy: str = "") -> str:
    """The text in that column. Raises RowError when it is absent or no text."""
    value = _value(row, column, remedy)
    if not isinstance(value, str):
        raise RowError(f"`{column}` = {shorten(value)}: must be text")
    return value


def list_of(row: Row, column: str, remedy: str = "") -> list[Any]:  # Any: as in Row
    """The list in that column. Raises RowError when it is absent or no list."""
    value = _value(row, column, remedy)
    if not isinstance(value, list):
        raise RowError(f"`{column}` = {shorten(value)}: must be a list")
    return value


def _value(row: Row, column: str, remedy: str) -> Any:
    if column not in row:
        advice = remedy or "rename a column, or set `type` to the format of the data"
        raise RowError(f"no column `{column}`: the row has {names_of(row)}; {advice}")
    return row[column]


def names_of(row: Row) -> str:
    return ", ".join(f"`{name}`" for name in row) or "no columns"


def shorten(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
