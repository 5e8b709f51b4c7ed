"""The claim of compatibility: keys.tsv names every key of the dialect and the one table it is in."""

import ast
from collections import Counter
from pathlib import Path

import pytest

from ftl.config.data import DatasetSection, InlineType
from ftl.config.flat import counts, key_list, keys
from ftl.config.model import SpecialTokens
from ftl.formats.example import FormatOptions

ROOT = Path(__file__).parents[3]
CLAIMED = {
    (level, key): table
    for level, key, table in (
        line.split("\t") for line in Path(__file__).with_name("keys.tsv").read_text().splitlines()[1:]
    )
}


def test_list_names_each_key_once():
    lines = Path(__file__).with_name("keys.tsv").read_text().splitlines()[1:]
    assert len(lines) == len(CLAIMED)


def test_every_claimed_key_is_in_its_table():
    real = key_list()
    assert {at: table for at, table in CLAIMED.items() if real.get(at) != table} == {}


def test_every_key_of_the_code_is_claimed():
    assert set(key_list()) - set(CLAIMED) == set()


def test_counts_are_those_of_the_list():
    by_level = {level: Counter[str]() for level in ("top", "dataset", "nested")}
    for (level, _), table in CLAIMED.items():
        by_level[level][table] += 1
    assert counts() == by_level


def _attributes_read() -> set[str]:
    """Names of attributes that any code outside config/ reads, launcher and runtime together."""
    files = [*(ROOT / "launcher/ftl").rglob("*.py"), *(ROOT / "runtime/ftl_runtime").rglob("*.py")]
    return {
        node.attr
        for file in files
        if not file.is_relative_to(ROOT / "launcher/ftl/config")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }


def _texts_in_formats() -> set[str]:
    """Words that formats/ writes as text: settings of a user's own format are looked up by name."""
    return {
        node.value
        for file in (ROOT / "launcher/ftl/formats").glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


READ = _attributes_read()
OPTIONS = set(FormatOptions.__dataclass_fields__)


@pytest.mark.parametrize("key", keys())
def test_field_of_a_derived_key_is_read_outside_config(key):
    assert keys()[key].loc[-1] in READ


@pytest.mark.parametrize("name", DatasetSection.model_fields)
def test_field_of_a_dataset_is_read_outside_config(name):
    assert name in READ or name in OPTIONS


@pytest.mark.parametrize("name", SpecialTokens.model_fields)
def test_field_of_the_special_tokens_is_read_outside_config(name):
    assert name in READ


@pytest.mark.parametrize("name", sorted(OPTIONS | set(InlineType.model_fields)))
def test_setting_of_a_format_is_read_by_the_formats(name):
    assert name in READ or name in _texts_in_formats()
