"""The format that a config words itself: `type:` as a mapping, for supervised fine-tuning."""

from collections.abc import Mapping
from typing import Any

from ftl.errors import ConfigError, Problem
from ftl.formats.example import Example, FormatOptions, RowError, Segment
from ftl.formats.rows import Row, pieces, shorten, text_of
from ftl.formats.singleturn import prompt_text
from ftl.formats.styles import Style
from ftl.formats.text import whole

_WITH_INPUT = "{instruction} {input} "
_WITHOUT_INPUT = "{instruction} "
# Key with a text -> the slots it may have.
_SLOTS = {
    "system_format": {"system"},
    "format": {"instruction", "input", "system"},
    "no_input_format": {"instruction", "system"},
}


def read_inline(row: Row, options: FormatOptions) -> Example:
    """A prompt by `format`, and the answer. A row whose system column is absent or null has `system_prompt`."""
    keys = _keys(options)
    if keys.get("field"):
        return whole(text_of(row, keys["field"], "set `field` to the column with the text"))
    instruction = text_of(row, keys["field_instruction"], "set `field_instruction` to the column with the question")
    system = row.get(keys["field_system"])
    prompt = prompt_text(
        Style(keys["system_format"], keys["format"], keys["no_input_format"]),
        instruction,
        _optional(row, keys["field_input"]),
        keys["system_prompt"] if system is None else text_of(row, keys["field_system"]),
    )
    answer = Segment(_optional(row, keys["field_output"]), True)
    return Example((Segment(prompt, options.train_on_inputs), answer))


def check_inline(options: FormatOptions) -> None:
    """Raises ConfigError when a text has a slot that it may not have."""
    keys = _keys(options)
    for key, allowed in _SLOTS.items():
        try:
            wrong = {name for _, name in pieces(keys[key]) if name is not None} - allowed
        except RowError as e:
            raise ConfigError(Problem(f"type.{key}", str(e))) from e
        if wrong:
            slots = " and ".join(f"{{{name}}}" for name in sorted(allowed))
            raise ConfigError(
                Problem(f"type.{key}", f"{shorten(keys[key])} holds {{{min(wrong)}}}", f"may hold {slots} alone")
            )


def _keys(options: FormatOptions) -> dict[str, Any]:  # Any: text, or null
    """The mapping with its defaults. A `format` without {input} is that of rows without one, too."""
    given: Mapping[str, Any] = {key: value for key, value in (options.inline or {}).items() if value is not None}
    format = given.get("format", _WITH_INPUT)
    defaults = {
        "system_prompt": "",
        "system_format": "{system}",
        "format": format,
        "no_input_format": _WITHOUT_INPUT if "{input}" in format else format,
        "field_system": "system",
        "field_instruction": "instruction",
        "field_input": "input",
        "field_output": "output",
    }
    return {**defaults, **given}


def _optional(row: Row, column: str) -> str:
    return "" if row.get(column) is None else text_of(row, column)
