"""Prompt and answers as the config words them: columns and texts with {slots}, flat or as a mapping in `type`."""

from ftl.formats.example import FormatOptions, RowError
from ftl.formats.rows import Row, fill, pieces, text_of

_DEFAULTS = {
    "field_prompt": "prompt",
    "field_system": "system",
    "field_chosen": "chosen",
    "field_rejected": "rejected",
    "field_completion": "completion",
    "field_label": "label",
    "prompt_format": "{prompt}",
    "chosen_format": "{chosen}",
    "rejected_format": "{rejected}",
    "completion_format": "{completion}",
}
PROMPT_KEYS = ("field_prompt", "field_system", "prompt_format")
"""Keys of a dataset that `user_prompt` looks at."""


def setting(options: FormatOptions, key: str) -> str:
    """What the config says under that key of the format, or its default."""
    given = vars(options) if options.inline is None else options.inline
    said = given.get(key)
    return _DEFAULTS[key] if said is None else str(said)


def user_prompt(row: Row, options: FormatOptions) -> str:
    """`prompt_format` with its {prompt} and {system}; a row without a system text gives an empty one."""
    system = setting(options, "field_system")
    slots = {
        "prompt": _column(row, options, "prompt"),
        "system": text_of(row, system) if row.get(system) is not None else "",
    }
    return _fill("prompt_format", slots, options)


def user_answer(row: Row, options: FormatOptions, name: str) -> str:
    """`chosen_format`, `rejected_format` or `completion_format` with its only slot, which is `name`."""
    return _fill(f"{name}_format", {name: _column(row, options, name)}, options)


def _fill(key: str, slots: Row, options: FormatOptions) -> str:
    template = setting(options, key)
    unknown = next((name for _, name in pieces(template) if name is not None and name not in slots), None)
    if unknown is not None:
        known = ", ".join(f"{{{name}}}" for name in slots)
        raise RowError(f"`{key}` has the slot {{{unknown}}}: must be {known}; columns are named by the `field_` keys")
    return fill(template, slots, required=True)


def _column(row: Row, options: FormatOptions, name: str) -> str:
    key = f"field_{name}"
    return text_of(row, setting(options, key), f"set `{key}` to the column with the {name} text")
