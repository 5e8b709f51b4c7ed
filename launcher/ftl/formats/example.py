"""What a row of a dataset becomes before any tokenizer sees it: text, and which of it is trained."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, Self

from ftl.errors import ConfigError

TrainOn = Literal["all", "turn", "last", "none"]

Family = Literal["sft", "dpo", "orpo", "kto", "reward", "prm", "kd", "grpo"]
"""What a sample consists of; a `type` may mean different things in different families."""

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "sft": "sft",
        "dpo": "dpo",
        "ipo": "dpo",
        "simpo": "dpo",
        "cpo": "dpo",
        "orpo": "orpo",
        "kto": "kto",
        "reward": "reward",
        "prm": "prm",
        "kd": "kd",
        "grpo": "grpo",
    }
)
"""Objective of a config -> the family of its data."""

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
class Picture:
    """A picture of a row: the path of a file, or the file's content."""

    path: str | None = None
    content: bytes | None = None


@dataclass(frozen=True)
class Example:
    """Segments in reading order, and what the tokenizer adds around them.

    An example whose segments are all empty has no tokens at all.
    """

    segments: tuple[Segment, ...]
    bos: bool = True
    """Begin as the tokenizer begins a text (most put BOS there, some put nothing); masked as the first segment is.
    A BOS that the text itself begins with is text, and gets this one in front."""
    num_eos: int = 1
    """End with so many EOS, one that the text ends with counted; masked as the last segment is."""
    empty_ends: Literal["no", "yes", "if_bos"] = "no"
    """Whether EOS comes after an empty last segment, too, so that the row trains it; if_bos: only from a tokenizer
    that begins a text with BOS."""
    may_split: bool = False
    """Longer than a row of tokens, it is cut into several rows instead of being dropped."""
    is_one_text: bool = False
    """Tokenise the segments joined, as a chat is at inference; a token with any trained character is then trained.
    Otherwise each segment is tokenised by itself, as a prompt and the answer to it are."""
    pictures: tuple[Picture, ...] | None = None
    """Those that the text has places for, in order; None of a text for a model that sees none."""


@dataclass(frozen=True)
class Target:
    """What a teacher expects in the place of a token."""

    ids: tuple[int, ...]
    """Its likeliest tokens there."""
    logits: tuple[float, ...]
    """Their log-probabilities at temperature 1, up to a number that is the same for all."""


@dataclass(frozen=True)
class TokenRow:
    """A row that is tokens already. Lists of one length; a label is its id or -100."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]
    targets: tuple[Target | None, ...] = ()
    """Of each token, None where the teacher says nothing; empty where there is no teacher."""


@dataclass(frozen=True)
class Preference:
    """A prompt with a better and a worse answer, as texts. `bos` and `eos` of the answers are in the texts."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Judged:
    """A prompt and one answer that is good or bad, as texts."""

    prompt: str
    completion: str
    label: bool


@dataclass(frozen=True)
class Pair:
    """Two whole texts of which the first is the better one, for reward models."""

    chosen: Example
    rejected: Example


@dataclass(frozen=True)
class Steps:
    """A prompt and steps towards an answer; a step's label, 0 or 1, is on the last token of its separator."""

    prompt: str
    steps: tuple[str, ...]
    labels: tuple[int | None, ...]
    """None for a step without a label."""
    separator: str
    max_completion_length: int | None


@dataclass(frozen=True)
class Turn:
    """One message of a conversation. `extra` holds the other keys of the message, which a template may use."""

    role: str
    content: str
    train: bool
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # Any: JSON of the user's
    parts: Mapping[str, tuple[tuple[int, int], ...]] = dataclasses.field(default_factory=dict)
    """`content`, or a key of `extra` -> which of its characters are trained: the first one, and the one after the
    last. A text that is not named here is trained whole where the turn is trained."""


@dataclass(frozen=True)
class Conversation:
    """Turns that a chat template has yet to put into text."""

    turns: tuple[Turn, ...]
    train_on_eos: TrainOn
    train_on_eot: TrainOn | None = None
    """As train_on_eos where absent."""
    tools: tuple[Mapping[str, Any], ...] = ()  # Any: JSON of the user's
    """What the model may call, each as JSON."""
    pictures: tuple[Picture, ...] | None = None
    """Those whose marks are in the contents, in order; None where the model sees none."""


@dataclass(frozen=True)
class TaughtConversation:
    """A conversation, with what a teacher expects of tokens that it does not have yet."""

    conversation: Conversation
    targets: tuple[Target | None, ...]


@dataclass(frozen=True)
class Opening:
    """Turns that the model is to go on with."""

    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class ConversationPair:
    """Turns with a better and a worse continuation, that a chat template has yet to put into text."""

    prompt: tuple[Turn, ...]
    chosen: tuple[Turn, ...]
    rejected: tuple[Turn, ...]


Sample = Example | TokenRow | Preference | Judged | Pair | Steps
"""What a row is in the end."""

Rendered = Sample | Conversation | TaughtConversation | Opening | ConversationPair
"""What a format makes of a row; the last four still need a chat template."""


@dataclass(frozen=True)
class FormatOptions:
    """The keys of a dataset that change what its rows become, by their names in the config."""

    family: Family = "sft"
    train_on_inputs: bool = False
    field: str | None = None
    text_column: str | None = None
    inline: Mapping[str, Any] | None = None  # Any: text, or null
    """The mapping written as `type`, with all its keys."""
    field_messages: str = "messages"
    field_tools: str = "tools"
    field_system: str | None = None
    message_property_mappings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    message_field_training: str | None = None
    message_field_training_detail: str | None = None
    field_thinking: str | None = None
    template_thinking_key: str | None = None
    split_thinking: bool = False
    roles: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    roles_to_train: tuple[str, ...] = ("assistant",)
    last_message_only: bool = False
    train_on_eos: TrainOn = "turn"
    train_on_eot: TrainOn | None = None
    drop_system_message: bool = False
    default_system_message: str | None = None
    field_prompt: str | None = None
    field_chosen: str | None = None
    field_rejected: str | None = None
    field_completion: str | None = None
    field_label: str | None = None
    prompt_format: str | None = None
    chosen_format: str | None = None
    rejected_format: str | None = None
    completion_format: str | None = None
    step_separator: str = "\n"
    max_completion_length: int | None = None
    train_on_last_step_only: bool = False
    logprobs_field: str = "logprobs"
    temperature: float = 1.0

    @classmethod
    def read(cls, keys: Mapping[str, Any], **more: Any) -> Self:  # Any: they are of many types
        """The options among the keys of a dataset section; `more` are those that the rest of the config decides."""
        names = {field.name for field in dataclasses.fields(cls)}
        given = {name: keys[name] for name in names & set(keys)}
        return cls(**{**given, "inline": keys["type"] if isinstance(keys.get("type"), Mapping) else None, **more})

    @property
    def role_key(self) -> str:
        return self.message_property_mappings.get("role", "role")

    @property
    def content_key(self) -> str:
        return self.message_property_mappings.get("content", "content")

    @property
    def role_names(self) -> Mapping[str, tuple[str, ...]]:
        return self.roles or DEFAULT_ROLES
