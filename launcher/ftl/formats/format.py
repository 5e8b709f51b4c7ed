"""What a format is: a reader of rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ftl.formats.example import FormatOptions, Rendered

Read = Callable[[Mapping[str, Any], FormatOptions], Rendered]
"""(row, options) -> what it becomes. Raises RowError when a column is missing or has another type."""

INLINE = "{}"
"""Key of the format for a `type` that is a mapping."""
ABSENT = ""
"""Key of the format for rows without a `type`."""


@dataclass(frozen=True)
class Format:
    read: Read
    needs_template: bool | None = False
    """It gives conversations, which a chat template has yet to put into text; None: it may give some."""
    template: str | None = None
    """The text of that template; absent: the config chooses."""
    check: Callable[[FormatOptions], None] | None = None
    """Raises ConfigError when the keys of the dataset do not fit the format."""
    program_sha256: str | None = None
    """Of the user's own code, where that reads the rows."""
