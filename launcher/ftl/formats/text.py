"""Formats without a prompt: whole texts, segments with a mask, rows that are tokens already."""

from ftl.formats.example import Example, FormatOptions, Segment
from ftl.formats.rows import Row, text_of


def read_completion(row: Row, options: FormatOptions) -> Example:
    """A text that is trained whole, and split where it is longer than a row of tokens."""
    text = text_of(row, options.field or "text", "set `field` to the column with the text")
    return Example((Segment(text, True),), may_split=True)
