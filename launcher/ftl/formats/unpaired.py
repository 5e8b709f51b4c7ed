"""Unpaired data: a prompt and one answer that is good or bad."""

from collections.abc import Mapping

from ftl.formats.example import FormatOptions, Judged, RowError
from ftl.formats.format import ABSENT, INLINE, MESSAGE_KEYS, Format, Read
from ftl.formats.rows import Row, names_of, shorten, text_of
from ftl.formats.turns import Turns, opening, read_turns, split_answer
from ftl.formats.turnstyles import STYLES, TurnStyle
from ftl.formats.userdefined import PROMPT_KEYS, setting, user_answer, user_prompt

# What follows the style in the name of a type -> the column with the prompt; `system` may be beside it.
_PROMPTS = {".argilla": "instruction", ".intel": "question", ".prompt_pairs": "prompt", ".ultra": "prompt"}


def read_user_defined(row: Row, options: FormatOptions) -> Judged:
    """The columns and the wording that the config gives."""
    label = _label(row, setting(options, "field_label"))
    return _judged(user_prompt(row, options), user_answer(row, options, "completion"), label)


def read_ready(row: Row, options: FormatOptions) -> Judged:
    """Rows that are worded already."""
    return _judged(text_of(row, "prompt"), text_of(row, "completion"), _label(row))


def _texts(style: TurnStyle, column: str) -> Read:
    """The reader of rows with the prompt in `column` and the answer in `completion`."""

    def read(row: Row, options: FormatOptions) -> Judged:
        prompt = style.prompt(opening(row, text_of(row, column)))
        return _judged(prompt, style.answer(text_of(row, "completion")), _label(row))

    return read


def _conversation(style: TurnStyle) -> Read:
    """The reader of rows whose `completion` holds a conversation, or its end where `chosen` holds its beginning."""

    def read(row: Row, options: FormatOptions) -> Judged:
        turns = read_turns(row, "completion", options)
        if len(turns) == 1 and row.get("chosen") is not None:
            turns = (*read_turns(row, "chosen", options), *turns)
        prompt, answer = split_answer(turns, "completion")
        _check_prompt(prompt)
        return _judged(style.prompt(prompt), style.answer(answer.content), _label(row))

    return read


def _check_prompt(prompt: Turns) -> None:
    if not prompt or prompt[-1].role == "assistant":
        raise RowError(
            "no message comes before the answer: "
            "`completion` must hold the whole conversation, or `chosen` what the answer in `completion` is to"
        )


_LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def _label(row: Row, column: str = "label") -> bool:
    if column not in row:
        raise RowError(
            f"no column `{column}`: the row has {names_of(row)}; "
            "each row needs true for a good answer or false for a bad one"
        )
    label = _LABELS.get(str(row[column]).lower())
    if label is None:
        raise RowError(f"`{column}` = {shorten(row[column])}: must be true or false, or 1 or 0")
    return label


def _judged(prompt: str, completion: str, label: bool) -> Judged:
    """Raises RowError when one of the texts is empty: nothing could be learned from it."""
    for name, text in (("prompt", prompt), ("completion", completion)):
        if not text:
            raise RowError(f"the {name} text is empty: must have at least one character; remove the row")
    return Judged(prompt, completion, label)


_USER_DEFINED = Format(read_user_defined, (*PROMPT_KEYS, "field_completion", "completion_format", "field_label"))

KTO: Mapping[str, Format] = {
    **{
        f"{name}{ending}": Format(_texts(style, column))
        for name, style in STYLES.items()
        for ending, column in _PROMPTS.items()
    },
    **{f"{name}.argilla_chat": Format(_conversation(style), MESSAGE_KEYS) for name, style in STYLES.items()},
    "user_defined": _USER_DEFINED,
    "user_defined.default": _USER_DEFINED,
    INLINE: Format(read_user_defined),
    ABSENT: Format(read_ready),
}
