"""What the command line says of a config: written over the file, typed as in the file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ftl.config.data import DATASET_KEYS
from ftl.config.flat import keys
from ftl.config.train import TrainConfig
from ftl.errors import ConfigError, Problem
from ftl.yamlfile import YamlFile, annotations_at, parse_value, secret_problems, value_at
from ftl.yamlparse import Loc

_NULLS = {"", "~", "null", "Null", "NULL"}


@dataclass(frozen=True)
class Setting:
    """A value that another file writes over the config."""

    key: str
    """Dotted for nested values: datasets.0.path"""
    value: Any  # Any: what YAML holds
    origin: str
    """Who says so, for messages: sweep.yml:3"""


def override(file: YamlFile, overrides: Sequence[tuple[str, str]], settings: Sequence[Setting] = ()) -> YamlFile:
    """`file` with the settings and then the overrides in it: keys, dotted for nested values, and their values as text.

    Raises ConfigError with every one that cannot be placed or looks secret.
    """
    problems: list[Problem | str] = []
    for setting in settings:
        try:
            file = file.with_value(_loc(setting.key, file.data), setting.value, setting.origin)
        except ConfigError as e:
            problems += e.problems
    for dotted, text in overrides:
        origin = "--set" if "." in dotted else f"--{dotted.replace('_', '-')}"
        try:
            loc = _loc(dotted, file.data)
            file = file.with_value(loc, _typed(text, loc, origin), origin)
        except ConfigError as e:
            problems += e.problems
    problems += secret_problems(file.data, file.where)
    if problems:
        raise ConfigError(*problems)
    return file


def overridden(file: YamlFile, base: Loc = ()) -> frozenset[str]:
    """The keys of the mapping at `base` that the command line gave, or gave a part of."""
    return frozenset(str(loc[len(base)]) for loc in file.origins if len(loc) > len(base) and loc[: len(base)] == base)


def _loc(dotted: str, data: Any) -> Loc:  # Any: what YAML holds
    """`datasets.0.path` as a place. An only dataset written as a mapping is also item 0."""
    loc: list[str | int] = []
    for part in dotted.split("."):
        here = value_at(data, tuple(loc))
        is_index = part.isdecimal() and bool(loc)
        if is_index and isinstance(here, dict) and part not in here and int(part) == 0:
            continue
        loc.append(int(part) if is_index and not isinstance(here, dict) else part if loc else part.replace("-", "_"))
    return tuple(loc)


def _typed(text: str, loc: Loc, origin: str) -> Any:  # Any: what YAML holds
    """The value of an override. Where only text is possible it stays text: a commit may be called 12e5."""
    types = _types(loc)
    if types and all(kind is str for kind in types):
        return None if text in _NULLS else text
    try:
        return parse_value(text, origin)
    except ConfigError:
        if str in types:
            return text
        raise


def _types(loc: Loc) -> list[Any]:  # Any: type annotations
    """The types at a place of the file; empty when it is not a derived key's."""
    key = keys().get(str(loc[0]))
    if key is None:
        return []
    is_only_dataset = loc[0] in DATASET_KEYS and len(loc) > 1 and not isinstance(loc[1], int)
    return annotations_at(TrainConfig, (*key.loc, *((0,) if is_only_dataset else ()), *loc[1:]))
