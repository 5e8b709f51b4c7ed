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

MESSAGE_KEYS = ("message_property_mappings", "roles")
"""Keys of a dataset that every reader of messages looks at."""
TEMPLATE_KEYS = (*MESSAGE_KEYS, "field_thinking", "template_thinking_key", "split_thinking", "drop_system_message")
"""Those that matter where a chat template writes the messages down."""
MASK_KEYS = (
    *("field_tools", "message_field_training", "message_field_training_detail"),
    *("roles_to_train", "last_message_only", "train_on_eos", "train_on_eot"),
)
"""Those of a conversation that is trained itself, not compared with another."""


@dataclass(frozen=True)
class Format:
    read: Read
    keys: tuple[str, ...] = ()
    """The keys of a dataset that change what it gives, besides `type`."""
    needs_template: bool | None = False
    """It gives conversations, which a chat template has yet to put into text; None: it may give some."""
    template: str | None = None
    """The text of that template; absent: the config chooses."""
    check: Callable[[FormatOptions], None] | None = None
    """Raises ConfigError when the keys of the dataset do not fit the format."""
    program_sha256: str | None = None
    """Of the user's own code, where that reads the rows."""
