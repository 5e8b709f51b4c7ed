"""Columns of a row as texts, with errors that name what the row has."""

import string
from collections.abc import Mapping
from typing import Any

from ftl.formats.example import RowError

Row = Mapping[str, Any]  # Any: a row is the user's JSON object


def fill(template: str, row: Row, *, required: bool) -> str:
    """`template` with each {column} replaced. Where not required, an absent or null column is an empty text."""
    parts = []
    for literal, column, _, _ in string.Formatter().parse(template):
        parts.append(literal)
        if column is not None:
            parts.append(text_of(row, column) if required or row.get(column) is not None else "")
    return "".join(parts)


def text_of(row: Row, column: str, remedy: str = "") -> str:
    """The text in that column. Raises RowError when it is absent or no text."""
    if column not in row:
        advice = remedy or "rename a column, or set `type` to the format of the data"
        raise RowError(f"no column `{column}`: the row has {names_of(row)}; {advice}")
    value = row[column]
    if not isinstance(value, str):
        raise RowError(f"`{column}` = {shorten(value)}: must be text")
    return value


def names_of(row: Row) -> str:
    return ", ".join(f"`{name}`" for name in row) or "no columns"


def shorten(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
