"""YAML text to plain data and the line of every value, strictly: no tags, no repeated keys, no bombs.

Only the event stream of PyYAML is used, never its constructors: no tag can make an object, and depth, size and
aliases are counted before anything is built (libyaml's own composer overflows the C stack on deep nesting).
"""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from ftl.errors import ConfigError, Problem

Loc = tuple[str | int, ...]
"""Where a value is: ("datasets", 0, "path")."""

MAX_VALUES = 100_000
"""Values after aliases are written out; a bomb has millions."""
MAX_DEPTH = 64

_PARSER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # Any: the C loader has no type of its own
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOLS = {
    word: value
    for value, words in ((True, ("true", "yes", "on")), (False, ("false", "no", "off")))
    for stem in words
    for word in (stem, stem.capitalize(), stem.upper())
}
# No octal and no base 60: `0123` and `1:30` stay text. No dates. `2e-5` is a number, which YAML 1.1 denies.
_INT = re.compile(r"[-+]?(0|[1-9](_?[0-9]){0,40})|0x[0-9a-fA-F]{1,32}")
_FLOAT = re.compile(r"[-+]?(?=.*[.eE])([0-9](_?[0-9]){0,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][-+]?[0-9]{1,5})?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")

_HINTS = {
    "mapping values are not allowed in this context": "a value that holds `: ` needs quotes",
    "could not find expected ':'": "write `key: value`, with a space after the colon",
    "did not find expected key": "check the indentation and the quotes on the lines above",
    "did not find expected '-' indicator": "a block is either a list or a mapping; check the indentation",
    "did not find expected ',' or ']'": "close the list with `]`",
    "did not find expected ',' or '}'": "close the mapping with `}`, or put text that starts with `{` in quotes",
    "found unexpected end of stream": "a quote is opened and not closed",
}


def parse(text: str, where: Callable[[int], str]) -> tuple[Any, dict[Loc, int]]:  # Any: what YAML holds
    """The value that `text` holds and the line, from 1, of everything in it; None for an empty text.

    `where` names a line in messages. Raises ConfigError.
    """
    builder = _Builder(yaml.parse(text, Loader=_PARSER), where)
    try:
        return builder.document(), builder.lines
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        line = mark.line if mark else 0
        source = [*text.splitlines(), ""][: line + 1][-1]
        raise ConfigError(_syntax_problem(e.problem or str(e), where(line + 1), source)) from e
    except yaml.YAMLError as e:
        line = text.count("\n", 0, getattr(e, "position", None) or 0)
        raise ConfigError(Problem(where(line + 1), "not valid YAML", "control characters are not allowed")) from e


def _syntax_problem(problem: str, where: str, source: str) -> Problem:
    hint = _HINTS.get(problem)
    if problem.startswith("found character"):
        is_tab = "\t" in source[: len(source) - len(source.lstrip())]
        problem = "a tab indents this line" if is_tab else "a value cannot start with this character"
        hint = "indent with spaces" if is_tab else "put the value in quotes"
    return Problem(where, "not valid YAML", problem, hint)


class _Builder:
    """Turns the events of one document into plain data. Counts what it makes, so that a bomb ends early."""

    def __init__(self, events: Iterator[Any], where: Callable[[int], str]) -> None:
        self.lines: dict[Loc, int] = {}
        self._events = events  # Any: PyYAML's event classes have no types
        self._where = where
        self._anchors: dict[str, tuple[Any, int]] = {}  # Any: what YAML holds; with its number of values
        self._num_values = 0

    def document(self) -> Any:  # Any: what YAML holds
        """The one document of the stream; None when there is none."""
        next(self._events)  # start of stream
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        value = self._value(next(self._events), ())
        next(self._events)  # end of document
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._refusal(event, "a second document starts here", "keep one document a file; remove `---`")
        return value

    def _value(self, event: Any, loc: Loc) -> Any:  # Any: see above
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, loc)
        before = self._num_values
        self._count(event, 1)
        self._check_depth(event, len(loc))
        self._check_tag(event)
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
        else:
            value = self._list(loc) if isinstance(event, yaml.SequenceStartEvent) else self._mapping(loc)
        if event.anchor:
            self._anchors[event.anchor] = value, self._num_values - before
        return value

    def _alias(self, event: Any, loc: Loc) -> Any:  # Any: see above
        if event.anchor not in self._anchors:
            name = f"`*{event.anchor}` refers to nothing above"
            raise self._refusal(event, name, "text that starts with * needs quotes")
        value, num_values = self._anchors[event.anchor]
        self._count(event, num_values)
        self._check_depth(event, len(loc) + _height(value))
        return value

    def _list(self, loc: Loc) -> list[Any]:  # Any: see above
        items: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            at = (*loc, len(items))
            self.lines[at] = _line(event)
            items.append(self._value(event, at))
        return items

    def _mapping(self, loc: Loc) -> dict[str, Any]:  # Any: see above
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._refusal(event, "a key must be text", "text that starts with [ or { needs quotes")
            key = event.value
            at = (*loc, key)
            if key in own:
                raise self._refusal(event, f"`{key}` is given twice, first in line {self.lines[at]}", "remove one")
            value_event = next(self._events)
            if key == "<<" and event.implicit[0]:
                merged |= self._merge(value_event, self._value(value_event, at))
                continue
            self.lines[at] = _line(event)
            own[key] = self._value(value_event, at)
        return merged | own

    def _merge(self, event: Any, value: Any) -> dict[str, Any]:  # Any: see above
        sources = value if isinstance(value, list) else [value]
        if not all(isinstance(source, dict) for source in sources):
            raise self._refusal(event, "`<<` takes a mapping, or a list of mappings")
        return {key: item for source in reversed(sources) for key, item in source.items()}

    def _scalar(self, event: Any) -> Any:  # Any: see above
        text: str = event.value
        if event.tag or not event.implicit[0]:  # !!str, or quoted
            return text
        if _NULL.fullmatch(text):
            return None
        if text in _BOOLS:
            return _BOOLS[text]
        if _INT.fullmatch(text):
            return int(text, 16) if text.startswith("0x") else int(text)
        if _FLOAT.fullmatch(text) or _NOT_FINITE.fullmatch(text):
            number = math.inf if _NOT_FINITE.fullmatch(text) else float(text)
            if not math.isfinite(number):
                raise self._refusal(event, f"{text} is not a finite number")
            return number
        return text

    def _check_tag(self, event: Any) -> None:  # Any: see above
        if event.tag not in (None, "!", "tag:yaml.org,2002:str"):
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise self._refusal(event, f"tag `{tag}` is not allowed", "text that starts with ! needs quotes")

    def _check_depth(self, event: Any, depth: int) -> None:  # Any: see above
        if depth > MAX_DEPTH:
            raise self._refusal(event, f"nested deeper than {MAX_DEPTH} levels")

    def _count(self, event: Any, num_values: int) -> None:  # Any: see above
        self._num_values += num_values
        if self._num_values > MAX_VALUES:
            raise self._refusal(event, f"more than {MAX_VALUES:,} values, aliases written out")

    def _refusal(self, event: Any, what: str, remedy: str | None = None) -> ConfigError:  # Any: see above
        return ConfigError(Problem(self._where(_line(event)), what, remedy=remedy))


def _line(event: Any) -> int:  # Any: PyYAML's event classes have no types
    return int(event.start_mark.line) + 1


def _height(value: Any) -> int:  # Any: what YAML holds
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return max((1 + _height(item) for item in inner), default=0)
