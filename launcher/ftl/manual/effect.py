"""What every key of one file does, and what holds for the keys that it leaves out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ftl.config.data import DATASET_KEYS
from ftl.config.dialect import Dialect, translate
from ftl.config.flat import DATASET, TRAIN
from ftl.config.load import load_train, open_train
from ftl.config.rules.effect import WITHOUT_EFFECT
from ftl.config.today import in_todays_keys
from ftl.config.train import TrainConfig
from ftl.errors import ConfigError, Problem
from ftl.manual.entries import Entry, entries, find, is_default_active
from ftl.yamlfile import YamlFile, show_loc, show_value
from ftl.yamlparse import Loc

Kind = Literal["honoured", "translated", "ignored", "no effect", "refused", "wrong"]
Told = Mapping[str, tuple[Kind, str]]
"""Dotted key -> what is known of it from elsewhere."""


@dataclass(frozen=True)
class Effect:
    """One key of the file."""

    name: str
    """Dotted: datasets.0.type."""
    line: int | None
    value: Any  # Any: what YAML holds
    kind: Kind
    why: str


@dataclass(frozen=True)
class Explained:
    """A file, key by key."""

    effects: tuple[Effect, ...]
    """In the order of the file."""
    others: tuple[str, ...]
    """What is wrong and stands at no key, such as one that is missing."""
    given: frozenset[str]
    """The keys of the top level that the file gives, by today's names."""
    config: TrainConfig | None
    """None where something is wrong."""


@dataclass(frozen=True)
class _Place:
    """A key of the file, and the mapping that it stands in."""

    loc: Loc
    value: Any  # Any: what YAML holds
    siblings: Mapping[str, Any]  # Any: what YAML holds
    dialect: Dialect
    refusal: str | None
    """Why ftl cannot train what it says yet."""

    @property
    def name(self) -> str:
        return show_loc(self.loc)

    @property
    def key(self) -> str:
        return str(self.loc[-1])


def explain(path: Path) -> Explained:
    """What the keys of the file do. Raises ConfigError only when it is no YAML that could be a config."""
    file = open_train(path)
    places = list(_places(file.data, TRAIN))
    config: TrainConfig | None = None
    told: Told
    others: list[str] = []
    try:
        loaded = load_train(path, bear_unbuilt=True)
    except ConfigError as e:
        told, others = _from_problems(e.problems, {place.name for place in places})
    else:
        config, told = loaded.config, _from_notes(loaded.notes, places, file)
    effects = tuple(_effect(place, file, told) for place in places)
    return Explained(effects, tuple(others), frozenset(_todays_names(file.data)), config)


def left_out(explained: Explained, *, everything: bool = False) -> list[Entry]:
    """The keys of the top level that the file leaves out and whose default does something, or all of them."""
    config = explained.config
    idle = {key for row in WITHOUT_EFFECT if config and row.holds(config) for key in row.keys}
    idle |= {"adapter"} - explained.given  # a section that is not there has no defaults
    return [
        entry
        for entry in entries().values()
        if entry.table == "derived" and "." not in entry.name and entry.name not in explained.given
        if everything or (is_default_active(entry.default) and not {entry.name, entry.section} & idle)
    ]


def _places(given: Mapping[str, Any], dialect: Dialect, base: Loc = ()) -> Iterator[_Place]:
    siblings = {key: value for key, value in given.items() if value is not None}  # Any: what YAML holds
    refusals = {problem.where: problem.allowed for problem in translate(siblings, dialect).unbuilt}
    for key, value in given.items():
        loc = (*base, key)
        items = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        if dialect is not TRAIN or key not in DATASET_KEYS or not any(isinstance(item, dict) for _, item in items):
            yield _Place(loc, value, siblings, dialect, refusals.get(key))
            continue
        for number, item in items:
            inner = loc if number is None else (*loc, number)
            if isinstance(item, dict):
                yield from _places(item, DATASET, inner)
            else:
                yield _Place(inner, item, siblings, dialect, None)


def _effect(place: _Place, file: YamlFile, told: Told) -> Effect:
    kind, why = told.get(place.name) or _by_tables(place)
    if kind == "wrong" and place.key in place.dialect.refused:
        kind = "refused"
    return Effect(place.name, file.line_of(place.loc), place.value, kind, why)


def _by_tables(place: _Place) -> tuple[Kind, str]:
    """What a key does, of which nothing is known from elsewhere."""
    key, value, dialect = place.key, place.value, place.dialect
    if value is None:
        return "no effect", "without a value it is as if it were not there"
    if key in dialect.ignored:
        return "ignored", dialect.ignored[key].reason
    if place.refusal is not None:
        return "refused", place.refusal
    if key in dialect.refused:
        return "no effect", f"{show_value(value)} asks for nothing; anything else is {dialect.refused[key].reason}"
    modern = in_todays_keys(key, value, place.siblings, dialect)
    if modern == {key: value}:
        return "honoured", find(f"datasets.{key}" if dialect is DATASET else key).meaning
    became = ", ".join(f"{name} = {show_value(new)}" for name, new in modern.items()) or "nothing"
    return "translated", f"{became}: {(dialect.values.get(key) or dialect.convert[key]).reason}"


def _from_problems(problems: Iterable[Problem | str], names: set[str]) -> tuple[dict[str, tuple[Kind, str]], list[str]]:
    """What is wrong by the key of the file that it stands at, and what stands at none."""
    told: dict[str, tuple[Kind, str]] = {}
    others = []
    for problem in problems:
        dotted = problem.given.partition(" = ")[0] if isinstance(problem, Problem) and problem.given else ""
        owner = _owner(dotted, names)
        if owner is None or isinstance(problem, str):
            others.append(str(problem))
            continue
        inner = f"{dotted.removeprefix(owner).lstrip('.')}: " if dotted != owner else ""
        why = f"{inner}{problem.allowed}" + (f"; {problem.remedy}" if problem.remedy else "")
        told[owner] = ("wrong", f"{told[owner][1]}; {why}" if owner in told else why)
    return told, others


def _owner(dotted: str, names: set[str]) -> str | None:
    """The key of the file that `dotted` is, or is in."""
    parts = dotted.split(".")
    return next((name for n in range(len(parts), 0, -1) if (name := ".".join(parts[:n])) in names), None)


def _from_notes(notes: Sequence[str], places: Iterable[_Place], file: YamlFile) -> dict[str, tuple[Kind, str]]:
    """The notes by the key of the file that they are about."""
    told: dict[str, tuple[Kind, str]] = {}
    for place in places:
        start = f"{file.where(place.loc)}: {place.name} = {show_value(place.value)}: "
        for note in notes:
            if note.startswith(start):
                told[place.name] = _kind_of(note.removeprefix(start))
    return told


def _kind_of(note: str) -> tuple[Kind, str]:
    kinds: tuple[tuple[str, Kind], ...] = (("read as ", "translated"), ("is not used: ", "ignored"))
    for words, kind in kinds:
        if note.startswith(words):
            return kind, note.removeprefix(words)
    return "no effect" if note.startswith("has no effect") else "honoured", note


def _todays_names(given: Mapping[str, Any]) -> Iterator[str]:  # Any: what YAML holds
    for key, value in given.items():
        if value is not None:
            try:
                yield from in_todays_keys(key, value, given, TRAIN)
            except ValueError:
                yield key
