"""`Format.keys` against what the readers really look at: the rules refuse keys of a dataset by it."""

import json
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from ftl.config.data import DatasetSection
from ftl.errors import ConfigError
from ftl.formats.example import Family, FormatOptions
from ftl.formats.format import ABSENT, INLINE, MASK_KEYS, MESSAGE_KEYS, TEMPLATE_KEYS, Format
from ftl.formats.render import FORMATS

CASES = sorted((Path(__file__).parents[2] / "golden/cases").glob("*.json"))
OF_THE_REST = {"family", "train_on_inputs", "inline", "default_system_message"}
"""Options that other keys of the config decide."""


class Recorder(FormatOptions):
    """Options that remember which of them were looked at."""

    def __getattribute__(self, name: str) -> Any:
        seen: set[str] = object.__getattribute__(self, "__dict__").setdefault("seen", set())
        seen.add(name)
        return object.__getattribute__(self, name)


def all_formats() -> list[Format]:
    return [format for formats in FORMATS.values() for format in formats.values()]


def test_every_option_of_a_dataset_is_a_key_of_some_format() -> None:
    known = {key for format in all_formats() for key in format.keys}
    assert known == {field.name for field in fields(FormatOptions)} - OF_THE_REST


def test_options_begin_as_the_keys_of_a_dataset_do() -> None:
    section = DatasetSection()
    shared = {field.name for field in fields(FormatOptions)} & DatasetSection.model_fields.keys()
    assert {name: getattr(FormatOptions(), name) for name in shared} == {
        name: getattr(section, name) for name in shared
    }


@pytest.mark.parametrize("file", CASES, ids=lambda file: file.stem)
def test_reader_looks_at_no_other_keys(file: Path) -> None:
    case = json.loads(file.read_text("utf-8"))
    kind = case["kind"]
    family: Family = "dpo" if kind in ("ipo", "simpo") else kind
    type = case["type"]
    name = type if isinstance(type, str) else ABSENT if type is None else INLINE
    if name not in FORMATS[family]:
        return  # a file of the user's, or a type that must be refused
    format = FORMATS[family][name]
    inline = type if isinstance(type, dict) else None
    seen: set[str] = set()
    for row in case["rows"]:
        options = Recorder(family=family, inline=inline)
        vars(options).pop("seen", None)
        with suppress(ConfigError):
            format.read(row, options)
        seen |= vars(options).get("seen", set())
    # Readers of messages look at them all; what a style or a preference does not show changes nothing.
    of_messages = {*MASK_KEYS, *TEMPLATE_KEYS} if set(MESSAGE_KEYS) <= set(format.keys) else set()
    looked_at = seen & {field.name for field in fields(FormatOptions)}
    assert looked_at - OF_THE_REST - of_messages <= set(format.keys)
