"""The formats by family and name: what a row becomes."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ftl.errors import ConfigError, Problem
from ftl.formats.example import Family, FormatOptions, Rendered
from ftl.formats.messages import read_conversation
from ftl.formats.singleturn import single_turn
from ftl.formats.table import SINGLE_TURN
from ftl.formats.text import read_completion

Read = Callable[[Mapping[str, Any], FormatOptions], Rendered]
"""(row, options) -> what it becomes. Raises RowError when a column is missing or has another type."""


@dataclass(frozen=True)
class Format:
    read: Read
    needs_template: bool = False
    """It gives conversations, which a chat template has yet to put into text."""


FORMATS: Mapping[Family, Mapping[str, Format]] = {
    "sft": {
        **{name: Format(single_turn(layout)) for name, layout in SINGLE_TURN.items()},
        "completion": Format(read_completion),
        "chat_template": Format(read_conversation, needs_template=True),
    },
    "dpo": {},
    "orpo": {},
    "kto": {},
    "reward": {},
    "prm": {},
}


def find_format(type: str | Mapping[str, Any] | None, family: Family) -> Format:
    """The format that `type` of a dataset names. Raises ConfigError with the closest names when there is none."""
    formats = FORMATS[family]
    name = type if isinstance(type, str) else ""
    if name in formats:
        return formats[name]
    close = difflib.get_close_matches(name, formats, n=3, cutoff=0.5)
    remedy = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(sorted(formats))}"
    raise ConfigError(Problem("type", repr(name) if name else "absent", f"is no format of {family} data", remedy))
