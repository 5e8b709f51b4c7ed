"""How a mapping in a human's file becomes modern keys: each derived, converted, refused or ignored, never dropped."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ftl.errors import Problem
from ftl.yamlfile import show_value, suggestion

Values = Mapping[str, Any]  # Any: what YAML holds
Convert = Callable[[Any, Values], dict[str, Any]]
"""(value, all keys given) -> the keys it stands for. Raises ValueError with what is allowed."""


@dataclass(frozen=True)
class Conversion:
    """A key, or a value of a derived key, that says in other words what some modern keys say."""

    convert: Convert
    reason: str
    is_noted: bool = False
    """Tell the user what it became, because it is not quite the same or easy to misread."""
    is_bool: bool = False


@dataclass(frozen=True)
class Aside:
    """A key that ftl does not honour. A harmless value asks for nothing and is dropped without a word."""

    reason: str
    harmless: tuple[Any, ...] = (False,)  # Any: what YAML holds
    is_unbuilt: bool = False
    """Refused until ftl can train it; the data of such a config can be checked and looked at all the same."""


@dataclass(frozen=True)
class Dialect:
    """How one mapping of the file is read. Each key is in exactly one of the first four."""

    derived: frozenset[str]
    convert: Mapping[str, Conversion]
    refused: Mapping[str, Aside]
    ignored: Mapping[str, Aside]
    values: Mapping[str, Conversion]
    """For derived keys: values of theirs that need a word. `convert` gives {key: value} for all the others."""

    def names(self) -> list[str]:
        """Every key that may be written, honoured ones first."""
        return [*sorted(self.derived), *self.convert, *self.refused, *self.ignored]


@dataclass
class Translation:
    """A mapping of the file in modern keys. In problems and notes, `where` is the user's key."""

    values: dict[str, Any] = field(default_factory=dict)  # Any: what YAML holds
    origin: dict[str, str] = field(default_factory=dict)
    """Modern key -> the key the user wrote."""
    problems: list[Problem] = field(default_factory=list)
    unbuilt: list[Problem] = field(default_factory=list)
    """Problems of keys that are refused until ftl can train what they say."""
    notes: list[Problem] = field(default_factory=list)


def translate(given: Values, dialect: Dialect) -> Translation:
    """`given`, which holds no null, in modern keys; what cannot be is in `problems`, each key with its reason."""
    result = Translation()
    for key, value in given.items():
        if key in dialect.derived:
            _convert(key, value, dialect.values.get(key), given, result)
    for key, value in given.items():
        if key in dialect.convert:
            _convert(key, value, dialect.convert[key], given, result)
        elif key in dialect.refused:
            if not _is_harmless(value, dialect.refused[key]):
                aside = dialect.refused[key]
                (result.unbuilt if aside.is_unbuilt else result.problems).append(Problem(key, allowed=aside.reason))
        elif key in dialect.ignored:
            if not _is_harmless(value, dialect.ignored[key]):
                result.notes.append(Problem(key, allowed=f"is not used: {dialect.ignored[key].reason}"))
        elif key not in dialect.derived:
            remedy = suggestion(key, dialect.names())
            result.problems.append(Problem(key, given=key, allowed="unknown key", remedy=remedy))
    return result


def _convert(key: str, value: Any, conversion: Conversion | None, given: Values, result: Translation) -> None:
    try:  # Any above: what YAML holds
        modern = conversion.convert(value, given) if conversion else {key: value}
    except ValueError as e:
        result.problems.append(Problem(key, allowed=str(e)))
        return
    for name, new in modern.items():
        if name in result.values and result.values[name] != new:
            told = f"contradicts `{result.origin[name]}`, which gives `{name}` too"
            result.problems.append(Problem(key, allowed=told, remedy="keep one of them"))
            continue
        result.values[name] = new
        result.origin.setdefault(name, key)
    if conversion and conversion.is_noted and modern != {key: value}:
        became = ", ".join(f"{name} = {show_value(new)}" for name, new in modern.items())
        result.notes.append(Problem(key, allowed=f"read as {became}: {conversion.reason}"))


def _is_harmless(value: Any, entry: Aside) -> bool:  # Any: what YAML holds
    return value in ("", [], {}) or any(value == dropped and type(value) is type(dropped) for dropped in entry.harmless)
