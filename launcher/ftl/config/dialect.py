"""How a mapping in a human's file becomes modern keys: each derived, converted, refused or ignored, never dropped."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ftl.errors import Problem
from ftl.yamlfile import show_value, suggestion

Values = Mapping[str, Any]  # Any: what YAML holds
Convert = Callable[[Any, Values], dict[str, Any]]
"""(value, all keys given) -> the keys it stands for. Raises ValueError with what is allowed, or NotBuiltError."""
Table = Literal["derived", "convert", "unbuilt", "refused", "ignored"]
"""unbuilt is refused too, for as long as ftl cannot train what the key says."""


class NotBuiltError(ValueError):
    """A value that ftl will take one day and cannot train yet. Such a config's data can be checked all the same."""


@dataclass(frozen=True)
class Conversion:
    """A key, or a value of a derived key, that says in other words what some modern keys say."""

    convert: Convert
    becomes: str
    """What to write today: keys, or a key and its value, as they stand in a file."""
    reason: str
    is_noted: bool = False
    """Tell the user what it became, because it is not quite the same or easy to misread."""
    is_bool: bool = False
    dropped: Callable[[Any], str | None] | None = None  # Any: what YAML holds
    """What of the value is left out, and why, in a sentence for the user."""


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
    nested: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Dotted name of a mapping that is refused or ignored -> the keys it may hold; whatever is not here is open."""

    def names(self) -> list[str]:
        """Every key that may be written, honoured ones first."""
        return [*sorted(self.derived), *self.convert, *self.refused, *self.ignored]

    def table_of(self, name: str) -> Table | None:
        """The table `name` is in, None when no table has it."""
        if name in self.derived:
            return "derived"
        if name in self.convert:
            return "convert"
        if name in self.refused:
            return "unbuilt" if self.refused[name].is_unbuilt else "refused"
        return "ignored" if name in self.ignored else None


@dataclass
class Translation:
    """A mapping of the file in modern keys. In problems and notes, `where` is the user's key, dotted if nested."""

    values: dict[str, Any] = field(default_factory=dict)  # Any: what YAML holds
    origin: dict[str, str] = field(default_factory=dict)
    """Modern key -> the key the user wrote."""
    problems: list[Problem] = field(default_factory=list)
    unbuilt: list[Problem] = field(default_factory=list)
    """Problems of keys that are refused until ftl can train what they say."""
    notes: list[Problem] = field(default_factory=list)
    displaced: set[str] = field(default_factory=set)
    """Keys of the user that the command line contradicts, and that count for nothing therefore."""


def translate(given: Values, dialect: Dialect, winners: frozenset[str] = frozenset()) -> Translation:
    """`given`, which holds no null, in modern keys; what cannot be is in `problems`, each key with its reason.

    What the keys in `winners` say displaces what others say of the same modern key; they come from the command line.
    """
    reading = _Reading(given, dialect, winners)
    order = [key for key in given if key in dialect.derived] + [key for key in given if key not in dialect.derived]
    for key in sorted(order, key=lambda key: key not in winners):
        reading.place(key, given[key], key)
    return reading.result


class _Reading:
    """One mapping on its way through the tables."""

    def __init__(self, given: Values, dialect: Dialect, winners: frozenset[str]) -> None:
        self.result = Translation()
        self._given = given
        self._dialect = dialect
        self._winners = winners
        self._first: dict[str, str] = {}
        """Modern key -> the user's key that said it first."""

    def place(self, name: str, value: Any, key: str) -> None:  # Any: what YAML holds
        """Put `name`, which is the user's `key` or what it was converted to, where its table says."""
        dialect = self._dialect
        self._first.setdefault(name, key)
        match dialect.table_of(name):
            case "derived" if name not in dialect.values:
                self._set(name, value, key)
            case "derived" | "convert":
                self._convert(name, value, key)
            case "unbuilt" | "refused":
                self._refuse(name, value, key)
            case "ignored":
                if not _is_harmless(value, dialect.ignored[name]):
                    self._note(key, f"is not used: {dialect.ignored[name].reason}")
                self._check_nested(name, value, key)
            case None:
                remedy = suggestion(name, dialect.names())
                self.result.problems.append(Problem(key, given=name, allowed="unknown key", remedy=remedy))

    def _convert(self, name: str, value: Any, key: str) -> None:  # Any: what YAML holds
        conversion = self._dialect.values.get(name) or self._dialect.convert[name]
        try:
            modern = conversion.convert(value, self._given)
        except ValueError as e:
            if not self._displace(name, key):
                self._refuse_value(e, key)
            return
        if conversion.is_noted and modern != {name: value}:
            became = ", ".join(f"{other} = {show_value(new)}" for other, new in modern.items()) or "nothing"
            self._note(key, f"read as {became}: {conversion.reason}")
        if conversion.dropped is not None and (told := conversion.dropped(value)):
            self._note(key, told)
        for other, new in modern.items():
            if other == name:
                self._set(name, new, key)
            else:
                self.place(other, new, key)

    def _refuse_value(self, error: ValueError, key: str) -> None:
        problem = Problem(key, allowed=str(error))
        if not isinstance(error, NotBuiltError):
            self.result.problems.append(problem)
            return
        self.result.unbuilt.append(problem)

    def _refuse(self, name: str, value: Any, key: str) -> None:  # Any: what YAML holds
        aside = self._dialect.refused[name]
        if not _is_harmless(value, aside) and not self._displace(name, key):
            told = aside.reason if name == key else f"stands for `{name}`: {aside.reason}"
            (self.result.unbuilt if aside.is_unbuilt else self.result.problems).append(Problem(key, allowed=told))
        self._check_nested(name, value, key)

    def _check_nested(self, name: str, value: Any, key: str) -> None:  # Any: what YAML holds
        for dotted in _unknown_below(name, value, self._dialect.nested):
            parent, _, last = dotted.rpartition(".")
            remedy = suggestion(last, self._dialect.nested[parent])
            self.result.problems.append(Problem(dotted, given=dotted, allowed="unknown key", remedy=remedy))

    def _set(self, name: str, value: Any, key: str) -> None:  # Any: what YAML holds
        result = self.result
        if name not in result.values:
            result.values[name] = value
            result.origin[name] = key
            return
        present = result.values[name]
        if isinstance(present, dict) and isinstance(value, dict):
            is_contradiction = any(present[inner] != value[inner] for inner in present.keys() & value.keys())
            result.values[name] = value | present
        else:
            is_contradiction = present != value
        if is_contradiction and not self._displace(name, key):
            told = f"contradicts `{result.origin[name]}`, which gives `{name}` too"
            result.problems.append(Problem(key, allowed=told, remedy="keep one of them"))

    def _displace(self, name: str, key: str) -> bool:
        """Whether the command line says `name` already, so that the file's `key` is set aside."""
        is_displaced = self._first.get(name) in self._winners and key not in self._winners
        if is_displaced:
            self.result.displaced.add(key)
        return is_displaced

    def _note(self, key: str, told: str) -> None:
        self.result.notes.append(Problem(key, allowed=told))


def _is_harmless(value: Any, entry: Aside) -> bool:  # Any: what YAML holds
    return value in ("", [], {}) or any(value == dropped and type(value) is type(dropped) for dropped in entry.harmless)


def _unknown_below(name: str, value: Any, nested: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    if name not in nested or not isinstance(value, dict):  # Any above: what YAML holds
        return
    for inner, item in value.items():
        dotted = f"{name}.{inner}"
        if inner not in nested[name]:
            yield dotted
        else:
            yield from _unknown_below(dotted, item, nested)
