"""A YAML file, and what the command line overrides of it, as a TrainConfig; every problem at once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError

from ftl.config import remote
from ftl.config.dialect import Dialect, Translation, translate
from ftl.config.flat import DATASET, TRAIN, keys
from ftl.config.override import DATASET_KEYS, overridden, override
from ftl.config.rules import DATASET_RULES, KEY_NOTES, KEY_RULES, RULES, KeyRule, without_effect
from ftl.config.tables.dataset import is_sharegpt
from ftl.config.train import TrainConfig
from ftl.errors import ConfigError, Problem
from ftl.yamlfile import (
    YamlFile,
    annotations_at,
    parse_file,
    read,
    show_loc,
    show_value,
    to_problems,
    value_at,
)
from ftl.yamlparse import Loc

_STAND_INS: dict[str, Any] = {  # Any: what YAML holds
    "base_model": "stand-in",
    "learning_rate": 1.0,
    "datasets": [{"path": "stand-in", "type": "completion"}],
}
"""Values for required keys that are missing or wrong, so that the rules can look at the rest."""
_FINER_THAN_ROLES = ("message_field_training", "message_field_training_detail", "last_message_only")


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


@dataclass
class _Reading:
    """The config on its way from the file to the sections."""

    file: YamlFile
    nested: dict[str, Any]  # Any: what YAML holds
    places: dict[Loc, Loc]
    """Place in the sections -> place in the file, where the field has not the key's name."""
    problems: list[Problem]
    unbuilt: list[Problem]
    notes: list[Problem]
    given: dict[str, Any]  # Any: what YAML holds
    """The top level as written, and over it what it stands for in modern keys."""
    origin: dict[str, str]
    """Modern key -> the key the user wrote."""


def load_train(path: Path, overrides: Sequence[tuple[str, str]] = (), *, bear_unbuilt: bool = False) -> Loaded:
    """The config in the file at `path`, or in the only .yml of that directory, with `overrides` written over it.

    `path` may also be an https address, where the environment allows that; local paths in such a config are then
    those of the working directory.

    An override is a key, dotted for nested values (`datasets.0.path`), and its value as text, typed as in the file.
    Raises ConfigError with every problem, in the user's own keys. Keys that ftl cannot train yet are problems too,
    unless `bear_unbuilt`.
    """
    file = override(open_train(path), overrides)
    reading = _read(file)
    contradictions = _key_problems(KEY_RULES, reading)
    reading.notes += _key_problems(KEY_NOTES, reading)
    if not bear_unbuilt:
        reading.problems += reading.unbuilt
    try:
        config = TrainConfig.model_validate(reading.nested)
    except ValidationError as e:
        found = to_problems(e, file, TrainConfig, lambda loc: _user_loc(loc, reading.places))
        raise ConfigError(*_by_line([*reading.problems, *contradictions, *found, *_other_problems(e, reading)])) from e
    problems = [*reading.problems, *contradictions, *_rule_problems(config, reading, _broken(reading, ()))]
    if problems:
        raise ConfigError(*_by_line(problems))
    notes = [*reading.notes, *(_placed(note, (note.where,), reading) for note in without_effect(config))]
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


def _read(file: YamlFile) -> _Reading:
    """The file's keys as sections. Whatever has no place there is a problem or a note."""
    nested: dict[str, Any] = {name: {} for name in TrainConfig.model_fields if name != "adapter"}
    reading = _Reading(file, nested, {}, [], [], [], {}, {})
    flat = _translate(file.data, TRAIN, (), reading)
    given = {key: value for key, value in _without_nulls(file.data).items() if key not in flat.displaced}
    reading.given, reading.origin = {**given, **flat.values}, flat.origin
    for key, value in flat.values.items():
        loc = keys()[key].loc
        user_loc: Loc = (flat.origin[key],)
        reading.places[loc] = user_loc
        types = annotations_at(TrainConfig, loc)
        if isinstance(value, bool) and bool not in types and {int, float} & set(types):
            value = show_value(value)  # text, for pydantic to refuse: it takes true for 1
        if key in DATASET_KEYS:
            value = _datasets(value, loc, user_loc, reading)
        reading.nested.setdefault(loc[0], {})[loc[1]] = _shaped(value, loc)
    _settle_adapter(reading)
    return reading


def _translate(given: Mapping[str, Any], dialect: Dialect, base: Loc, reading: _Reading) -> Translation:
    meant = {
        key: value if key in DATASET_KEYS else _without_nulls(value)  # entries are read one by one, nulls and all
        for key, value in given.items()
        if value is not None
    }
    result = translate(meant, dialect, overridden(reading.file, base))  # Any above: what YAML holds

    def place(found: list[Problem]) -> list[Problem]:
        return [_placed(item, (*base, *_parts(item.where, meant)), reading) for item in found]

    reading.problems += place(result.problems)
    reading.unbuilt += place(result.unbuilt)
    reading.notes += place(result.notes)
    return result


def _parts(where: str, given: Mapping[str, Any]) -> Loc:  # Any: what YAML holds
    """The place of a key below `given`, whose own dots are no dots of a path."""
    return (where,) if where in given else tuple(where.split("."))


def _datasets(value: Any, loc: Loc, user_loc: Loc, reading: _Reading) -> Any:  # Any: what YAML holds
    """The entries in modern keys; a mapping alone counts as one entry, and the path of streamed texts as well."""
    is_streamed = loc[-1] == "pretraining_dataset"
    entries = [value] if isinstance(value, dict) or (is_streamed and isinstance(value, str)) else value
    if not isinstance(entries, list):
        return value
    modern = []
    for number, entry in enumerate(entries):
        base = (*user_loc, number) if isinstance(value, list) else user_loc
        if is_streamed and isinstance(entry, str):
            entry = {"path": entry}
        if not isinstance(entry, dict):
            modern.append(entry)
            continue
        if is_streamed and entry.get("type") is None:
            entry = {**entry, "type": "pretrain"}
        result = _translate(_with_last_message(entry, base, reading), DATASET, base, reading)
        reading.places |= {(*loc, number, key): (*base, own) for key, own in result.origin.items()}
        modern.append(result.values)
    return modern


def _with_last_message(entry: dict[str, Any], base: Loc, reading: _Reading) -> dict[str, Any]:
    """An empty `roles_to_train:` of a conversation trains its last message alone, as axolotl documents it."""
    kind = entry.get("type")  # Any above: what YAML holds
    is_chat = isinstance(kind, str) and (kind.startswith("chat_template") or is_sharegpt(kind))
    is_emptied = "roles_to_train" in entry and entry["roles_to_train"] is None
    if not is_chat or not is_emptied or any(entry.get(key) is not None for key in _FINER_THAN_ROLES):
        return entry
    told = "read as last_message_only = true; to train every reply, remove the key"
    reading.notes.append(_placed(Problem("", allowed=told), (*base, "roles_to_train"), reading))
    return {**entry, "last_message_only": True}


def _settle_adapter(reading: _Reading) -> None:
    """Keys of an adapter that nobody asked for become notes; keys of one that is refused stay to be checked."""
    adapter = reading.nested.get("adapter")
    if adapter is None or "kind" in adapter:
        return
    if reading.file.data.get("adapter"):
        adapter["kind"] = "lora"
        return
    for name in adapter:
        loc = reading.places["adapter", name]
        reading.notes.append(_placed(Problem("", allowed="has no effect without `adapter: lora`"), loc, reading))
    del reading.nested["adapter"]


def _without_nulls(value: Any) -> Any:  # Any: what YAML holds
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _shaped(value: Any, loc: Loc) -> Any:  # Any: what YAML holds
    """`value` with lists where the field at `loc` wants one and a single item was given."""
    types = annotations_at(TrainConfig, loc)
    is_list_wanted = any(get_origin(kind) is tuple for kind in types)
    if is_list_wanted and not isinstance(value, list) and not (isinstance(value, str) and str in types):
        value = [value]
    if isinstance(value, list):
        return [_shaped(item, (*loc, number)) for number, item in enumerate(value)]
    if isinstance(value, dict) and any(get_origin(kind) is dict or _is_section(kind) for kind in types):
        return {key: _shaped(item, (*loc, key)) for key, item in value.items()}
    return value


def _is_section(kind: Any) -> bool:  # Any: a type annotation
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _user_loc(loc: Loc, places: Mapping[Loc, Loc]) -> Loc:
    """Where the value at `loc` of the sections stands in the file."""
    for end in range(len(loc), 1, -1):
        if loc[:end] in places:
            return (*places[loc[:end]], *loc[end:])
    names = {key.loc: key.key for key in keys().values()}
    return (names[str(loc[0]), str(loc[1])], *loc[2:]) if loc[:2] in names else loc


def _placed(problem: Problem, loc: Loc, reading: _Reading) -> Problem:
    """The problem with file and line, and the key with the value that stands there."""
    value = show_value(value_at(reading.file.data, loc))
    given = show_loc(loc) if problem.given else f"{show_loc(loc)} = {value}"
    return replace(problem, where=reading.file.where(loc), given=given)


def _by_line(problems: list[Problem]) -> list[Problem]:
    lines = [problem.where.rpartition(":")[2] for problem in problems]
    return [problem for _, problem in sorted(zip(lines, problems, strict=True), key=lambda pair: pair[0].zfill(9))]


def _other_problems(error: ValidationError, reading: _Reading) -> list[Problem]:
    """What the rules say of a config whose fields have problems already: stand-ins are put in their place."""
    names = {key.loc: key.key for key in keys().values()}
    fields = {loc for entry in error.errors() if (loc := (str(entry["loc"][0]), str(entry["loc"][1]))) in names}
    nested = {section: dict(values) for section, values in reading.nested.items()}
    for section, name in fields:
        nested[section].pop(name, None)
        if names[section, name] in _STAND_INS:
            nested[section][name] = _STAND_INS[names[section, name]]
    try:
        config = TrainConfig.model_validate(nested)
    except ValidationError:
        return []
    return _rule_problems(config, reading, _broken(reading, [names[loc] for loc in fields]))


def _broken(reading: _Reading, fields: Sequence[str]) -> set[str]:
    """The keys whose values are not what the user meant."""
    refused = {problem.given.partition(" = ")[0] for problem in reading.problems if problem.given}
    return refused | set(fields)


def _key_problems(rules: Sequence[KeyRule], reading: _Reading) -> list[Problem]:
    """What the keys of the file say against one another; those of a wrong value say nothing."""
    broken = _broken(reading, ())
    found = [problem for rule in rules if (problem := rule(reading.given))]
    return [
        _placed(problem, (reading.origin.get(problem.where, problem.where),), reading)
        for problem in found
        if problem.where not in broken and not any(f"`{name}`" in str(problem) for name in broken)
    ]


def _rule_problems(config: TrainConfig, reading: _Reading, broken: set[str]) -> list[Problem]:
    found = [
        (problem, _user_loc(_section_loc(key), reading.places))
        for problem, key in _rules_broken(config)
        if key[0] not in broken and not any(f"`{name}`" in str(problem) for name in broken)
    ]
    return [_placed(problem, loc, reading) for problem, loc in found]


def _rules_broken(config: TrainConfig) -> Iterator[tuple[Problem, Loc]]:
    for rule in RULES:
        if problem := rule(config):
            yield problem, (problem.where,)
    data = config.data
    for key, datasets in zip(DATASET_KEYS, (data.datasets, data.test_datasets, data.pretraining_dataset), strict=True):
        for number, dataset in enumerate(datasets):
            for dataset_rule in DATASET_RULES:
                if problem := dataset_rule(dataset, config):
                    yield problem, (key, number, problem.where)


def _section_loc(flat: Loc) -> Loc:
    return (*keys()[str(flat[0])].loc, *flat[1:])
