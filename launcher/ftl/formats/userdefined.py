"""Prompt and answers as the config words them: columns and texts with {slots}, flat or as a mapping in `type`."""

from ftl.formats.example import FormatOptions
from ftl.formats.rows import Row, fill, text_of

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
    return fill(setting(options, "prompt_format"), slots, required=True)


def user_answer(row: Row, options: FormatOptions, name: str) -> str:
    """`chosen_format`, `rejected_format` or `completion_format` with its only slot, which is `name`."""
    return fill(setting(options, f"{name}_format"), {name: _column(row, options, name)}, required=True)


def _column(row: Row, options: FormatOptions, name: str) -> str:
    key = f"field_{name}"
    return text_of(row, setting(options, key), f"set `{key}` to the column with the {name} text")
