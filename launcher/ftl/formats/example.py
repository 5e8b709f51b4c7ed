"""What a row of a dataset becomes before any tokenizer sees it: text, and which of it is trained."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, Self

from ftl.errors import ConfigError

TrainOnEos = Literal["all", "turn", "last", "none"]

# Role of the template -> names the data may use for it. A role named nowhere goes to the template as it is.
DEFAULT_ROLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"user": ("human", "user"), "assistant": ("gpt", "assistant"), "system": ("system",), "tool": ("tool",)}
)


class RowError(ConfigError):
    """One row cannot be used. It says what is wrong; whoever knows the file puts `file:line` in front."""


@dataclass(frozen=True)
class Segment:
    """A piece of text. `train` = its tokens are their own labels."""

    text: str
    train: bool


@dataclass(frozen=True)
class Example:
    """Segments in reading order, and what the tokenizer adds around them.

    An example whose segments are all empty has no tokens at all.
    """

    segments: tuple[Segment, ...]
    bos: bool = True
    """Begin as the tokenizer begins a text (most put BOS there, some put nothing); masked as the first segment is."""
    eos: bool = True
    """End with EOS unless the last segment is empty or ends with EOS already; masked as the last segment is."""
    may_split: bool = False
    """Longer than a row of tokens, it is cut into several rows instead of being dropped."""
    is_one_text: bool = False
    """Tokenise the segments joined, as a chat is at inference; a token with any trained character is then trained.
    Otherwise each segment is tokenised by itself, as a prompt and the answer to it are."""


@dataclass(frozen=True)
class Turn:
    """One message of a conversation. `extra` holds the other keys of the message, which a template may use."""

    role: str
    content: str
    train: bool
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # Any: JSON of the user's


@dataclass(frozen=True)
class Conversation:
    """Turns that a chat template has yet to put into text."""

    turns: tuple[Turn, ...]
    train_on_eos: TrainOnEos


@dataclass(frozen=True)
class FormatOptions:
    """The keys of a dataset that change what its rows become."""

    train_on_inputs: bool = False
    field: str = "text"
    field_messages: str = "messages"
    role_key: str = "role"
    content_key: str = "content"
    roles: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=lambda: DEFAULT_ROLES)
    roles_to_train: tuple[str, ...] = ("assistant",)
    train_on_eos: TrainOnEos = "turn"

    @classmethod
    def read(cls, keys: Mapping[str, Any], *, train_on_inputs: bool = False) -> Self:
        """The options among the keys of a dataset section, the config's defaults filled in."""
        mapping = keys["message_property_mappings"]
        return cls(
            train_on_inputs=train_on_inputs,
            field=keys["field"] or "text",
            field_messages=keys["field_messages"],
            role_key=mapping.get("role", "role"),
            content_key=mapping.get("content", "content"),
            roles=keys["roles"] or DEFAULT_ROLES,
            roles_to_train=tuple(keys["roles_to_train"]),
            train_on_eos=keys["train_on_eos"],
        )
