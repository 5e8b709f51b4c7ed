"""A YAML file, and what the command line overrides of it, as a TrainConfig; every problem at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from ftl.config import remote
from ftl.config.override import Setting, overridden, override
from ftl.config.reading import loc_in_file, placed, read_keys
from ftl.config.rules import KEY_NOTES, KEY_RULES, without_effect
from ftl.config.train import TrainConfig
from ftl.config.verdict import broken_keys, key_problems, other_problems, rule_problems
from ftl.errors import ConfigError, Problem
from ftl.yamlfile import (
    YamlFile,
    parse_file,
    read,
    to_problems,
)

_CODE = "trust_remote_code"


@dataclass(frozen=True)
class Loaded:
    """A training config and what is worth telling about how it was read."""

    config: TrainConfig
    path: Path
    notes: tuple[str, ...]
    """Sentences for the user: keys that were ignored, have no effect, or became others."""
    file: YamlFile
    """The file with the overrides in it."""
    unbuilt: tuple[Problem, ...] = ()
    """Keys that ftl cannot train yet; empty unless `load_train` was told to bear them."""
    origin: Mapping[str, str] = field(default_factory=dict)
    """Top-level key -> the key that the user wrote for it, an older spelling maybe."""


def load_train(
    path: Path,
    overrides: Sequence[tuple[str, str]] = (),
    *,
    settings: Sequence[Setting] = (),
    bear_unbuilt: bool = False,
) -> Loaded:
    """The config in the file at `path`, or in the only .yml of that directory, with `overrides` written over it.

    `path` may also be an https address, where the environment allows that; local paths in such a config are then
    those of the working directory.

    Such a config may not ask for code to be run; an override may.

    An override is a key, dotted for nested values (`datasets.0.path`), and its value as text, typed as in the file.
    `settings` are what a sweep writes over the file. Raises ConfigError with every problem, in the user's own keys.
    Keys that ftl cannot train yet are problems too, unless `bear_unbuilt`.
    """
    file = override(open_train(path), overrides, settings)
    reading = read_keys(file)
    if remote.as_url(path) and file.data.get(_CODE) and _CODE not in overridden(file):
        remedy = f"read the code of base_model, then say so yourself: `--{_CODE} true`"
        given = "a config from the network may not have code run"
        reading.problems.append(Problem(file.where((_CODE,)), _CODE, given, remedy))
    contradictions = key_problems(KEY_RULES, reading)
    reading.notes += key_problems(KEY_NOTES, reading)
    if not bear_unbuilt:
        reading.problems += reading.unbuilt
    try:
        config = TrainConfig.model_validate(reading.nested)
    except ValidationError as e:
        found = to_problems(e, file, TrainConfig, lambda loc: loc_in_file(loc, reading.places))
        raise ConfigError(*_by_line([*reading.problems, *contradictions, *found, *other_problems(e, reading)])) from e
    problems = [*reading.problems, *contradictions, *rule_problems(config, reading, broken_keys(reading, ()))]
    if problems:
        raise ConfigError(*_by_line(problems))
    notes = [*reading.notes, *(placed(note, (note.where,), reading) for note in without_effect(config))]
    told = tuple(str(note) for note in notes)
    return Loaded(config, file.path, told, file, tuple(_by_line(reading.unbuilt)), reading.origin)


def open_train(path: Path) -> YamlFile:
    """The file that `load_train` reads at `path`, as YAML. Raises ConfigError when it is none."""
    if url := remote.as_url(path):
        return parse_file(remote.fetch(url), Path(remote.file_name(url)), remote.shown(url))
    if not path.is_dir():
        return read(path)
    names = sorted(entry.name for entry in path.iterdir() if entry.suffix in {".yml", ".yaml"})
    if not names:
        raise ConfigError(Problem(str(path), "a directory without a .yml file"))
    if len(names) > 1:
        raise ConfigError(Problem(str(path), f"a directory with {', '.join(names)}", "name one of them"))
    return read(path / names[0])


def _by_line(problems: list[Problem]) -> list[Problem]:
    lines = [problem.where.rpartition(":")[2] for problem in problems]
    return [problem for _, problem in sorted(zip(lines, problems, strict=True), key=lambda pair: pair[0].zfill(9))]
