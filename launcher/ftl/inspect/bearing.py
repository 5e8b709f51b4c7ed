"""A config with problems, read as far as it can be: its data is checked in the same run."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ftl.config.load import Loaded, load_train
from ftl.errors import ConfigError, Problem

Override = tuple[str, str]

_STAND_INS = {"learning_rate": "1"}
"""Values for required keys that say nothing about the data."""


def load_bearing(path: Path, overrides: Sequence[Override]) -> tuple[Loaded | None, list[Problem]]:
    """The config and all its problems. None where even without the keys that have problems it is no config."""
    try:
        return load_train(path, overrides), []
    except ConfigError as e:
        problems = [p if isinstance(p, Problem) else Problem(p) for p in e.problems]
    for attempt in (overrides, [*overrides, *_without(problems)]):
        try:
            return load_train(path, attempt, bear_unbuilt=True), problems
        except ConfigError:
            continue
    return None, problems


def _without(problems: Sequence[Problem]) -> Iterator[Override]:
    """Overrides that take the keys of the problems out of the file."""
    for problem in problems:
        key = (problem.given or "").partition(" = ")[0]
        if key:
            yield key, _STAND_INS.get(key, "null")
