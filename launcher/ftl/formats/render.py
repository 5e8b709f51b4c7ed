"""A row to an example."""

import string
from collections.abc import Callable, Mapping
from typing import Any

from ftl.formats.example import Conversation, Example, FormatOptions, RowError, Segment
from ftl.formats.messages import read_conversation
from ftl.formats.table import SINGLE_TURN, SingleTurn

# Any: a row is the user's JSON object.
Row = Mapping[str, Any]


def render(type: str, row: Row, options: FormatOptions) -> Example | Conversation:
    """What a row of a dataset of this type becomes. Raises RowError when a column is missing or has another type."""
    return _RENDER[type](row, options)


def _render_completion(row: Row, options: FormatOptions) -> Example:
    if options.field not in row:
        raise RowError(
            f"no column `{options.field}`: the row has {_names(row)}; set `field` to the column with the text"
        )
    return Example((Segment(_text(row, options.field), True),), may_split=True)


def _render_single_turn(layout: SingleTurn, row: Row, options: FormatOptions) -> Example:
    slots = {
        "instruction": _fill(layout.instruction, row, required=True),
        "input": _fill(layout.input, row, required=False),
    }
    style = layout.style.with_input if slots["input"] else layout.style.without_input
    prompt = Segment(_fill(style, slots, required=True), options.train_on_inputs)
    return Example((prompt, Segment(_fill(layout.answer, row, required=False), True)))


def _fill(template: str, row: Row, *, required: bool) -> str:
    parts = []
    for literal, column, _, _ in string.Formatter().parse(template):
        parts.append(literal)
        if column is not None:
            parts.append(_text(row, column) if required or row.get(column) is not None else "")
    return "".join(parts)


def _text(row: Row, column: str) -> str:
    if column not in row:
        raise RowError(
            f"no column `{column}`: the row has {_names(row)}; rename a column, or set `type` to the format of the data"
        )
    value = row[column]
    if not isinstance(value, str):
        raise RowError(f"`{column}` = {_shorten(value)}: must be text")
    return value


def _names(row: Row) -> str:
    return ", ".join(f"`{name}`" for name in row) or "no columns"


def _shorten(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _single_turn(layout: SingleTurn) -> Callable[[Row, FormatOptions], Example]:
    return lambda row, options: _render_single_turn(layout, row, options)


_RENDER: dict[str, Callable[[Row, FormatOptions], Example | Conversation]] = {
    **{name: _single_turn(layout) for name, layout in SINGLE_TURN.items()},
    "completion": _render_completion,
    "chat_template": read_conversation,
}
