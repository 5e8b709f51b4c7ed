"""A config with problems, read as far as it can be: its data and its files are checked in the same run."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ftl.config.flat import keys
from ftl.config.load import Loaded, load_train
from ftl.errors import ConfigError, Problem

Override = tuple[str, str]

_STAND_INS = {"learning_rate": "1"}
"""Values for required keys that say nothing about the data."""
_MISSING = re.compile(r"`([a-z0-9_]+)` is missing")
_ABOUT_DATA = ("special_tokens", "tokens", "added_tokens_overrides")


@dataclass(frozen=True)
class Bearing:
    """A config as far as it could be read."""

    loaded: Loaded | None
    """None where even without the keys that have problems it is no config."""
    problems: tuple[Problem, ...]
    is_data_clear: bool
    """No key with a problem decides what rows become."""


def load_bearing(path: Path, overrides: Sequence[Override]) -> Bearing:
    """The config and all its problems; those keys are left out of it that have one."""
    try:
        return Bearing(load_train(path, overrides), (), True)
    except ConfigError as e:
        problems = _problems(e)
    real: tuple[Problem, ...] = ()
    try:
        return Bearing(load_train(path, overrides, bear_unbuilt=True), problems, True)
    except ConfigError as e:
        real = _problems(e)  # without the keys that ftl cannot train yet: those say what the data is
    try:
        loaded = load_train(path, [*overrides, *_without(real)], bear_unbuilt=True)
    except ConfigError:
        return Bearing(None, problems, False)
    return Bearing(loaded, problems, not any(_is_about_data(_key(problem)) for problem in real))


def _problems(error: ConfigError) -> tuple[Problem, ...]:
    return tuple(problem if isinstance(problem, Problem) else Problem(problem) for problem in error.problems)


def _without(problems: Sequence[Problem]) -> Iterator[Override]:
    """Overrides that take the keys of the problems out of the file."""
    for problem in problems:
        if key := _key(problem):
            yield key, _STAND_INS.get(key, "null")


def _is_about_data(key: str) -> bool:
    top = key.partition(".")[0]
    return top in _ABOUT_DATA or (top in keys() and keys()[top].loc[0] == "data")


def _key(problem: Problem) -> str:
    """The key that a problem is about: it stands before the value, or in the sentence that it is missing."""
    missing = _MISSING.match(problem.allowed or "")
    return missing[1] if missing else (problem.given or "").partition(" = ")[0]
