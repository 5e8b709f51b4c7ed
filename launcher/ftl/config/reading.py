"""The keys of a file on their way to the sections: each in modern words, at its place, or told of."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, get_origin

from pydantic import BaseModel

from ftl.config.data import DATASET_KEYS
from ftl.config.deepspeedfile import read_settings
from ftl.config.dialect import Dialect, Translation, translate
from ftl.config.flat import DATASET, TRAIN, keys
from ftl.config.override import overridden
from ftl.config.tables.dataset import is_sharegpt
from ftl.config.train import TrainConfig
from ftl.config.zero import zero_of
from ftl.errors import Problem
from ftl.yamlfile import YamlFile, annotations_at, show_loc, show_value, value_at
from ftl.yamlparse import Loc

_FINER_THAN_ROLES = ("message_field_training", "message_field_training_detail", "last_message_only")


@dataclass
class Reading:
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


def read_keys(file: YamlFile) -> Reading:
    """The file's keys as sections. Whatever has no place there is a problem or a note."""
    nested: dict[str, Any] = {name: {} for name in TrainConfig.model_fields if name != "adapter"}
    reading = Reading(file, nested, {}, [], [], [], {}, {})
    flat = _translate(_with_deepspeed_file(reading), TRAIN, (), reading)
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
    _settle_precision(reading)
    return reading


def _translate(given: Mapping[str, Any], dialect: Dialect, base: Loc, reading: Reading) -> Translation:
    meant = {
        key: value if key in DATASET_KEYS else _without_nulls(value)  # entries are read one by one, nulls and all
        for key, value in given.items()
        if value is not None
    }
    result = translate(meant, dialect, overridden(reading.file, base))  # Any above: what YAML holds

    def place(found: list[Problem]) -> list[Problem]:
        return [placed(item, (*base, *_parts(item.where, meant)), reading) for item in found]

    reading.problems += place(result.problems)
    reading.unbuilt += place(result.unbuilt)
    reading.notes += place(result.notes)
    return result


def _parts(where: str, given: Mapping[str, Any]) -> Loc:  # Any: what YAML holds
    """The place of a key below `given`, whose own dots are no dots of a path."""
    return (where,) if where in given else tuple(where.split("."))


def _with_deepspeed_file(reading: Reading) -> Mapping[str, Any]:  # Any: what YAML holds
    """The top level with what stands in the file that `deepspeed` names, and without the key where none can be read."""
    data, given = reading.file.data, reading.file.data.get("deepspeed")
    if not isinstance(given, str) or not given:
        return data
    try:
        settings = read_settings(given, reading.file.path)
    except ValueError as e:
        reading.problems.append(placed(Problem("", allowed=str(e)), ("deepspeed",), reading))
        return {key: value for key, value in data.items() if key != "deepspeed"}
    if settings.note:
        reading.notes.append(placed(Problem("", allowed=settings.note), ("deepspeed",), reading))
    return {**data, "deepspeed": settings.values}


def _datasets(value: Any, loc: Loc, user_loc: Loc, reading: Reading) -> Any:  # Any: what YAML holds
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


def _with_last_message(entry: dict[str, Any], base: Loc, reading: Reading) -> dict[str, Any]:
    """An empty `roles_to_train:` of a conversation trains its last message alone, as axolotl documents it."""
    kind = entry.get("type")  # Any above: what YAML holds
    is_chat = isinstance(kind, str) and (kind.startswith("chat_template") or is_sharegpt(kind))
    is_emptied = "roles_to_train" in entry and entry["roles_to_train"] is None
    if not is_chat or not is_emptied or any(entry.get(key) is not None for key in _FINER_THAN_ROLES):
        return entry
    told = "read as last_message_only = true; to train every reply, remove the key"
    reading.notes.append(placed(Problem("", allowed=told), (*base, "roles_to_train"), reading))
    return {**entry, "last_message_only": True}


def _settle_adapter(reading: Reading) -> None:
    """Keys of an adapter that nobody asked for become notes; keys of one that is refused stay to be checked."""
    adapter = reading.nested.get("adapter")
    if adapter is None or "kind" in adapter:
        return
    if reading.file.data.get("adapter"):
        adapter["kind"] = "lora"
        return
    for name in adapter:
        loc = reading.places["adapter", name]
        reading.notes.append(placed(Problem("", allowed="has no effect without `adapter: lora`"), loc, reading))
    del reading.nested["adapter"]


def _settle_precision(reading: Reading) -> None:
    """A DeepSpeed file that enables bf16 says what the config leaves open."""
    deepspeed = reading.nested["parallel"].get("deepspeed")
    is_open = reading.nested["precision"].get("compute") in (None, "auto")
    if is_open and isinstance(deepspeed, dict) and zero_of(deepspeed).bf16:
        reading.nested["precision"]["compute"] = "bf16"


def _without_nulls(value: Any) -> Any:  # Any: what YAML holds
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _shaped(value: Any, loc: Loc) -> Any:  # Any: what YAML holds
    """`value` with lists where the field at `loc` wants one and a single item was given."""
    types = annotations_at(TrainConfig, loc)
    is_list_wanted = any(get_origin(kind) is tuple for kind in types)
    if is_list_wanted and not isinstance(value, list) and type(value) not in types:
        value = [value]
    if isinstance(value, list):
        return [_shaped(item, (*loc, number)) for number, item in enumerate(value)]
    if isinstance(value, dict) and any(get_origin(kind) is dict or _is_section(kind) for kind in types):
        return {key: _shaped(item, (*loc, key)) for key, item in value.items()}
    return value


def _is_section(kind: Any) -> bool:  # Any: a type annotation
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def loc_in_file(loc: Loc, places: Mapping[Loc, Loc]) -> Loc:
    """Where the value at `loc` of the sections stands in the file."""
    for end in range(len(loc), 1, -1):
        if loc[:end] in places:
            return (*places[loc[:end]], *loc[end:])
    names = {key.loc: key.key for key in keys().values()}
    return (names[str(loc[0]), str(loc[1])], *loc[2:]) if loc[:2] in names else loc


def placed(problem: Problem, loc: Loc, reading: Reading) -> Problem:
    """The problem with file and line, and the key with the value that stands there."""
    value = show_value(value_at(reading.file.data, loc))
    given = show_loc(loc) if problem.given else f"{show_loc(loc)} = {value}"
    return replace(problem, where=reading.file.where(loc), given=given)
