"""A config in today's spellings: keys that have a newer name are written anew, all the rest stays as it is.

The text is changed where such a key stands and nowhere else, so comments, order, quotes and blank lines are kept.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import yaml

from ftl.config.data import DATASET_KEYS
from ftl.config.dialect import Dialect, translate
from ftl.config.flat import DATASET, TRAIN
from ftl.config.today import in_todays_keys
from ftl.errors import ConfigError, Problem
from ftl.yamlparse import parse

Values = Mapping[str, Any]  # Any: what YAML holds
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # Any: the C loader has no type of its own
_Span = tuple[int, int]  # first character, and the one after the last
Today = Mapping[str, Values]
"""A key as it is written -> what to write in its place; nothing where it says nothing."""


@dataclass(frozen=True)
class _Edit:
    """The characters from `start` to `end` are to become `text`."""

    start: int
    end: int
    text: str


def migrate(text: str, where: str) -> str:
    """The config in `text` with every key under its name of today.

    What has no newer name, is wrong, or is not honoured stays. Raises ConfigError, naming the file as `where`, when
    the text is no YAML, or when anchors share keys that would have to differ.
    """
    data, _ = parse(text, lambda line: f"{where}:{line}")
    try:
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.YAMLError as e:
        raise ConfigError(Problem(where, "an anchor has the name of another", remedy="rename it")) from e
    if not isinstance(data, dict) or not isinstance(node, yaml.MappingNode):
        raise ConfigError(Problem(where, "the file must hold `key: value` lines"))
    edits = {edit for mapping, given, today in _mappings(node, data) for edit in _edits(text, mapping, given, today)}
    migrated = text
    for edit in sorted(edits, key=lambda edit: edit.start, reverse=True):
        migrated = migrated[: edit.start] + edit.text + migrated[edit.end :]
    if edits and _meaning(parse(migrated, lambda line: where)[0] or {}) != _meaning(data):
        remedy = "write out what `*` and `<<` stand for, then migrate"
        raise ConfigError(Problem(where, "anchors share keys that would have to differ", remedy=remedy))
    return migrated


def todays_keys(given: Values, dialect: Dialect) -> dict[str, dict[str, Any]]:  # Any: what YAML holds
    """Each key of a mapping -> the keys to write in its place today; none where it says nothing.

    A newer key is written where it stands already, else where the first one stands that becomes it.
    """
    said = _said(given)
    modern = {key: _modern(key, value, said, dialect) for key, value in given.items()}
    today = {key: {key: new[key]} if key in new else {} for key, new in modern.items()}
    owners = {key: key for key in today if today[key]}
    for key, new in modern.items():
        others = {name: value for name, value in new.items() if name != key}
        joined = {name: _joined(today[owners[name]][name], others[name]) for name in others if name in owners}
        if _CONTRADICTION in joined.values():
            today[key] = {key: given[key]}  # for the one who reads the config to decide
            continue
        for name, value in others.items():
            today[owners.setdefault(name, key)][name] = joined.get(name, value)
    return today


def _modern(key: str, value: Any, said: Values, dialect: Dialect) -> dict[str, Any]:  # Any: what YAML holds
    if value is None:
        return {} if key in dialect.convert else {key: None}
    try:
        return in_todays_keys(key, value, said, dialect)
    except ValueError:
        return {key: value}


_CONTRADICTION = object()


def _joined(present: Any, value: Any) -> Any:  # Any: what YAML holds
    if isinstance(present, dict) and isinstance(value, dict):
        is_contradiction = any(present[name] != value[name] for name in present.keys() & value.keys())
        return _CONTRADICTION if is_contradiction else present | value
    return value if present in (value, None) else _CONTRADICTION


def _mappings(node: yaml.MappingNode, data: Values) -> Iterator[tuple[yaml.MappingNode, Values, Today]]:
    """The mappings whose keys have newer names: the file itself, and each dataset."""
    yield node, data, todays_keys(data, TRAIN)
    for key, value in node.value:
        if key.value in DATASET_KEYS:
            is_list = isinstance(value, yaml.SequenceNode)
            nodes, entries = (value.value, data[key.value]) if is_list else ([value], [data[key.value]])
            for entry_node, entry in zip(nodes, entries, strict=True):
                if isinstance(entry_node, yaml.MappingNode):
                    yield entry_node, entry, todays_keys(entry, DATASET)


def _edits(text: str, node: yaml.MappingNode, given: Values, today: Today) -> Iterator[_Edit]:
    spans = [_span(text, key, value) for key, value in node.value]
    removed = []
    for number, (key, _) in enumerate(node.value):
        name, (start, end) = key.value, spans[number]
        if name not in today or today[name] == {name: given[name]}:  # `<<` is in no table
            continue
        if not today[name]:
            removed.append(number)
            continue
        quote = text[start] if text[start] in "\"'" else ""
        old = text[key.end_mark.index : end]  # with the colon
        lines = [
            f"{quote}{new}{quote}" + (old if value == given[name] else f": {_written(value, quote)}")
            for new, value in today[name].items()
        ]
        line_break = "\r\n" if "\r\n" in text else "\n"
        between = ", " if node.flow_style else line_break + " " * key.start_mark.column
        yield _Edit(start, end, between.join(lines))
    for run in _runs(removed):
        yield from _removals(text, spans, run, is_flow=bool(node.flow_style))


def _runs(numbers: list[int]) -> list[list[int]]:
    """The numbers, those that follow one another together."""
    groups = groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])
    return [[number for _, number in group] for _, group in groups]


def _removals(text: str, spans: list[_Span], run: list[int], *, is_flow: bool) -> Iterator[_Edit]:
    """What takes neighbouring keys out of their mapping. A comment behind one of them stays."""
    first, last = run[0], run[-1]
    if not is_flow and not _before(text, spans[first][0]).strip():
        for number in run:
            start, end = spans[number]
            end += len(text[end:]) - len(text[end:].lstrip(" \t"))
            is_commented = text[end : end + 1] == "#"
            yield (
                _Edit(start, end, "") if is_commented else _Edit(start - len(_before(text, start)), _eol(text, end), "")
            )
    elif last + 1 < len(spans):
        yield _Edit(spans[first][0], spans[last + 1][0], "")
    elif first > 0:
        yield _Edit(spans[first - 1][1], spans[last][1], "")
    else:
        yield _Edit(spans[first][0], spans[last][1], "" if is_flow else "{}")


def _before(text: str, start: int) -> str:
    """What stands on the line before `start`."""
    return text[text.rfind("\n", 0, start) + 1 : start]


def _eol(text: str, start: int) -> int:
    """Where the next line begins."""
    return text.find("\n", start) + 1 or len(text)


def _span(text: str, key: yaml.Node, value: yaml.Node) -> _Span:
    """Where a key begins, and where its value ends."""
    if value.start_mark.index < key.end_mark.index:  # an alias has the place of what it stands for
        alias = re.match(r"\s*:\s*\*[^\s,\]}]+", text[key.end_mark.index :])
        assert alias is not None, "what stands further up is named by an alias"
        return key.start_mark.index, key.end_mark.index + alias.end()
    return key.start_mark.index, key.start_mark.index + len(text[key.start_mark.index : _end(value)].rstrip())


def _end(node: yaml.Node) -> int:
    """Where a value ends; a block of lines ends, to PyYAML, where the next key begins."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style:
        return int(node.end_mark.index)
    last = node.value[-1][1] if isinstance(node, yaml.MappingNode) else node.value[-1]
    return _end(last)


def _written(value: Any, quote: str) -> str:  # Any: what YAML holds
    """The value on one line; as JSON in a file whose keys are quoted as in JSON."""
    if quote == '"':
        return json.dumps(value, ensure_ascii=False)
    dumped: str = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=2**20)
    return dumped.removesuffix("...\n").strip()


def _meaning(data: Values) -> list[Values]:
    """What the keys stand for: of the file, and of each dataset."""
    top = translate(_said(data), TRAIN).values
    entries = [entry for key in DATASET_KEYS for entry in _as_list(top.pop(key, []))]
    return [top, *(translate(_said(entry), DATASET).values if isinstance(entry, dict) else entry for entry in entries)]


def _said(given: Values) -> dict[str, Any]:  # Any: what YAML holds
    return {key: value for key, value in given.items() if value is not None}


def _as_list(value: Any) -> list[Any]:  # Any: what YAML holds
    return value if isinstance(value, list) else [value]
