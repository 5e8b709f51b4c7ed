"""Preference data: a prompt with a better and a worse answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ftl.formats.example import ConversationPair, FormatOptions, Preference, RowError, Turn
from ftl.formats.format import ABSENT, INLINE, MESSAGE_KEYS, TEMPLATE_KEYS, Format, Read
from ftl.formats.rows import Row, text_of
from ftl.formats.turns import (
    check_alternating,
    check_same,
    first_column,
    opening,
    read_turns,
    split_answer,
    with_columns,
    with_default_system,
)
from ftl.formats.turnstyles import STYLES, ZEPHYR, TurnStyle
from ftl.formats.userdefined import PROMPT_KEYS, user_answer, user_prompt

ReadPair = Callable[[Row, FormatOptions], ConversationPair]


@dataclass(frozen=True)
class Columns:
    """The columns with the texts. Of several names, the first one that the row has a value for is read."""

    prompt: tuple[str, ...]
    chosen: tuple[str, ...] = ("chosen",)
    rejected: tuple[str, ...] = ("rejected",)


_ANY = Columns(
    prompt=("prompt", "input", "question", "instruction"),
    chosen=("chosen", "chosen_response"),
    rejected=("rejected", "rejected_response"),
)
# What follows the style in the name of a type -> its columns. A column `system` may be beside them.
_TEXTS: Mapping[str, Columns] = {
    "": _ANY,
    ".argilla": Columns(("instruction",), ("chosen_response",), ("rejected_response",)),
    ".icr": Columns(("input",)),
    ".intel": Columns(("question",)),
    ".prompt_pairs": Columns(("prompt",)),
}


def read_pair(row: Row, options: FormatOptions) -> ConversationPair:
    """`chosen` and `rejected` hold one conversation, each with a last message of its own."""
    column, other = options.field_chosen or "chosen", options.field_rejected or "rejected"
    prompt, chosen = split_answer(read_turns(row, column, options), column)
    prompt_of_other, rejected = split_answer(read_turns(row, other, options), other)
    check_same(prompt, prompt_of_other, column, other)
    return ConversationPair(prompt, (chosen,), (rejected,))


def read_pair_with_columns(row: Row, options: FormatOptions) -> ConversationPair:
    """As `read_pair`; the columns `system` and `prompt` may hold how the conversation begins."""
    pair = read_pair(row, options)
    return replace(pair, prompt=with_columns(row, pair.prompt, options.field_chosen or "chosen"))


def read_alternating(row: Row, options: FormatOptions) -> ConversationPair:
    """As `read_pair_with_columns`, where the conversation is of user and assistant by turns."""
    pair = read_pair(row, options)
    check_alternating((*pair.prompt, *pair.chosen), options.field_chosen or "chosen")
    return replace(pair, prompt=with_columns(row, pair.prompt, options.field_chosen or "chosen"))


def read_prompt_and_answers(row: Row, options: FormatOptions) -> ConversationPair:
    """The conversation has a column of its own; the others hold an answer each, as one message or a list."""
    prompt = read_turns(row, options.field_messages, options)
    if prompt[-1].role == "assistant":
        raise RowError(
            f"`{options.field_messages}` ends with a message of assistant: must end before the answers, "
            "which have columns of their own"
        )
    answers = []
    for column in (options.field_chosen or "chosen", options.field_rejected or "rejected"):
        turns = read_turns(row, column, options)
        split_answer(turns, column)
        answers.append(turns)
    return ConversationPair(prompt, *answers)


def read_user_defined(row: Row, options: FormatOptions) -> Preference:
    """The columns and the wording that the config gives."""
    answers = (user_answer(row, options, name) for name in ("chosen", "rejected"))
    return _preference(user_prompt(row, options), *answers)


def read_ready(row: Row, options: FormatOptions) -> Preference:
    """Rows that are worded already."""
    return _preference(*(text_of(row, column) for column in ("prompt", "chosen", "rejected")))


def read_nectar(row: Row, options: FormatOptions) -> Preference:
    """A prompt with ranked answers: the best one is chosen over the second best. Rank 1 is the best."""
    answers = row.get("answers")
    if not isinstance(answers, list) or len(answers) < 2 or not all(map(_is_ranked, answers)):
        raise RowError("`answers` must be a list of at least two objects with a text `answer` and a number `rank`")
    best, second, *_ = sorted(answers, key=lambda answer: answer["rank"])
    # The empty system turn belongs to this type.
    prompt = ZEPHYR.prompt((Turn("system", "", False), Turn("user", text_of(row, "prompt"), False)))
    return _preference(prompt, best["answer"], second["answer"])


def _is_ranked(answer: Any) -> bool:  # Any: the user's JSON
    return isinstance(answer, dict) and isinstance(answer.get("answer"), str) and _is_number(answer.get("rank"))


def _is_number(value: Any) -> bool:  # Any: the user's JSON
    return isinstance(value, int | float) and not isinstance(value, bool)


def _texts(style: TurnStyle, columns: Columns) -> Read:
    """The reader of rows with the prompt and the answers in columns of their own."""

    def read(row: Row, options: FormatOptions) -> Preference:
        prompt, chosen, rejected = (
            text_of(row, first_column(row, names)) for names in (columns.prompt, columns.chosen, columns.rejected)
        )
        return _preference(style.prompt(opening(row, prompt)), style.answer(chosen), style.answer(rejected))

    return read


def _written(read_conversations: ReadPair, style: TurnStyle) -> Read:
    """The reader of rows with conversations that are written down in that style, not by a chat template."""

    def read(row: Row, options: FormatOptions) -> Preference:
        pair = read_conversations(row, options)
        chosen, rejected = style.answer(pair.chosen[-1].content), style.answer(pair.rejected[-1].content)
        return _preference(style.prompt(pair.prompt), chosen, rejected)

    return read


def templated(read_conversations: ReadPair, keys: tuple[str, ...]) -> Format:
    """The format of rows with conversations that a chat template writes down; `keys` are those of the reader."""

    def read(row: Row, options: FormatOptions) -> ConversationPair:
        pair = read_conversations(row, options)
        return replace(pair, prompt=with_default_system(pair.prompt, options))

    return Format(read, keys, needs_template=True)


def _preference(prompt: str, chosen: str, rejected: str) -> Preference:
    """Raises RowError when one of the texts is empty: nothing could be learned from it."""
    texts = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    if empty := next((name for name, text in texts.items() if not text), None):
        raise RowError(f"the {empty} text is empty: must have at least one character; remove the row")
    return Preference(prompt, chosen, rejected)


_ANSWERS = ("field_chosen", "field_rejected")
_USER_DEFINED = Format(read_user_defined, (*PROMPT_KEYS, *_ANSWERS, "chosen_format", "rejected_format"))

STYLED: Mapping[str, Format] = {
    f"{name}{ending}": format
    for name, style in STYLES.items()
    for ending, format in (
        *((ending, Format(_texts(style, columns))) for ending, columns in _TEXTS.items()),
        (".argilla_chat", Format(_written(read_pair, style), (*MESSAGE_KEYS, *_ANSWERS))),
        (".ultra", Format(_written(read_pair_with_columns, style), (*MESSAGE_KEYS, *_ANSWERS))),
    )
}
"""The types named after a style: `chatml.intel`, `llama3.ultra`, ..."""

_WITH_PROMPT = templated(read_prompt_and_answers, ("field_messages", *TEMPLATE_KEYS, *_ANSWERS))
_ALTERNATING = templated(read_alternating, (*TEMPLATE_KEYS, *_ANSWERS))

DPO: Mapping[str, Format] = {
    **STYLED,
    "zephyr.nectar": Format(read_nectar),
    "chat_template": _WITH_PROMPT,
    "chat_template.default": _WITH_PROMPT,
    "chat_template.argilla_chat": templated(read_pair, (*TEMPLATE_KEYS, *_ANSWERS)),
    "user_defined": _USER_DEFINED,
    "user_defined.default": _USER_DEFINED,
    INLINE: Format(read_user_defined),
    "passthrough": Format(read_ready),
    ABSENT: Format(read_ready),
}
"""For rl: dpo, ipo, simpo and cpo."""

ORPO: Mapping[str, Format] = {
    "chat_template": _ALTERNATING,
    "chat_template.argilla": _ALTERNATING,
    ABSENT: Format(read_ready),
}
