"""Prompts that the model answers itself: a text, or messages. All other columns go to the reward functions."""

from collections.abc import Mapping
from typing import Any

from ftl.formats.example import Example, FormatOptions, Opening, RowError, Segment
from ftl.formats.format import ABSENT, MESSAGE_KEYS, Format
from ftl.formats.messages import read_messages
from ftl.formats.rows import Row

PROMPT_COLUMN = "prompt"


def prompt_column(type: str | None, options: FormatOptions) -> str:
    """The column with the prompt."""
    return options.field_messages if type == "chat_template" else options.field_prompt or PROMPT_COLUMN


def read_prompt(row: Row, options: FormatOptions) -> Example | Opening:
    """A text as it is, or messages."""
    column = prompt_column(None, options)
    text = row.get(column)
    if not isinstance(text, str):
        return _opening(row, column, options)
    if not text:
        raise RowError(f"`{column}` is empty: remove the row")
    return Example((Segment(text, False),), num_eos=0)


def read_opening(row: Row, options: FormatOptions) -> Opening:
    """The messages of the column that holds them."""
    return _opening(row, prompt_column("chat_template", options), options)


def _opening(row: Row, column: str, options: FormatOptions) -> Opening:
    turns = read_messages(row, column, options)
    if turns[-1].role == "assistant":
        raise RowError(f"`{column}` ends with an answer, which the model is to write: remove it")
    return Opening(turns)


GRPO: Mapping[str, Format] = {
    ABSENT: Format(read_prompt, ("field_prompt", *MESSAGE_KEYS), needs_template=None),
    "chat_template": Format(read_opening, ("field_messages", *MESSAGE_KEYS), needs_template=True),
}


def columns_of(row: Mapping[str, Any], column: str) -> dict[str, Any]:  # Any: the user's JSON
    """All but the prompt."""
    return {name: value for name, value in row.items() if name != column}
