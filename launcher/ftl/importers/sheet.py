"""What an import has made so far: the config, the cloud file, and a line for each thing that was given."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ftl.errors import ConfigError, Problem
from ftl.importers.commandline import Command
from ftl.importers.secret import looks_secret
from ftl.yamlfile import suggestion


@dataclass(frozen=True)
class Line:
    """One row of the report."""

    given: str
    """As the other program had it: `--lora_r 64`, or `lora_r = 64, its default`."""
    became: str
    """The keys it became; empty when it was dropped."""
    why: str = ""
    keys: tuple[str, ...] = ()
    """Those of the config."""


@dataclass
class Imported:
    """The files that an import gives, and the report about them."""

    config: dict[str, Any] = field(default_factory=dict)  # Any: what YAML holds
    """Empty where the input trains a config that ftl reads as it is."""
    cloud: dict[str, Any] = field(default_factory=dict)  # Any: what YAML holds
    """Empty where the input says nothing of machines."""
    lines: list[Line] = field(default_factory=list)
    arguments: tuple[str, ...] = ()
    """What to give `ftl train` besides: the config's path, if not written here, and overrides."""

    def drop(self, given: str, why: str) -> None:
        self.lines.append(Line(given, "", why))

    def place(self, given: str, keys: Mapping[str, Any], why: str = "") -> None:  # Any: what YAML holds
        """Put the keys into the config."""
        self.config |= keys
        self.lines.append(Line(given, shown(keys), why, tuple(keys)))

    def place_cloud(self, given: str, keys: Mapping[str, Any], why: str = "") -> None:  # Any: what YAML holds
        """Put the keys into the cloud file."""
        self.cloud |= keys
        self.lines.append(Line(given, f"cloud file: {shown(keys)}", why))


class Flags:
    """The flags of a command line, taken one after the other, so that those nobody took can be reported."""

    def __init__(self, command: Command, lists: Sequence[str] = ()) -> None:
        """`lists` are the flags whose value may be several words."""
        self._given = dict(command.flags)
        self._lists = frozenset(lists)
        self._asked: set[str] = set()

    def take(self, flag: str, default: Any = None) -> tuple[Any, str]:  # Any: what YAML holds
        """The value of a flag, or the program's own default, and how to show it.

        Raises ConfigError for a list where the program takes one word, and for a flag that lacks its word.
        """
        value = self._given.get(flag)
        if isinstance(value, list) and not isinstance(default, list) and flag not in self._lists:
            given = " ".join(_plain(item, flag) for item in value) or "an empty list"
            raise ConfigError(Problem(f"--{flag}", given, "must be one word", "put quotes around one with spaces"))
        if value is True and isinstance(default, str):
            raise ConfigError(Problem(f"--{flag}", allowed="needs a value", remedy=f"write --{flag} VALUE"))
        return self._take(flag, default)

    def _take(self, flag: str, default: Any = None) -> tuple[Any, str]:  # Any: what YAML holds
        self._asked.add(flag)
        if flag not in self._given:
            return default, f"{flag} = {_plain(default)}, its default"
        value = self._given.pop(flag)
        value = bool(value) if isinstance(default, bool) and value in (0, 1) else value
        return value, f"--{flag}" if value is True else f"--{flag} {_plain(value, flag)}"

    def copy(self, flag: str, key: str, default: Any, imported: Imported) -> None:  # Any: what YAML holds
        """Put the flag's value under `key`, or the default if the program has one."""
        value, given = self.take(flag, default)
        if value is not None and value != "":
            imported.place(given, {key: value})

    def drop_rest(self, reasons: Mapping[str, str], imported: Imported) -> None:
        """Report the flags that nobody took: with the reason where it is known, else with what may have been meant."""
        known = {*self._asked, *reasons}
        for flag in list(self._given):
            _, given = self._take(flag)
            remedy = suggestion(flag, known, "--{}")
            why = reasons.get(flag) or "not known to this import" + (f"; {remedy}" if remedy else "")
            imported.drop(given, why)


def shown(keys: Mapping[str, Any]) -> str:  # Any: what YAML holds
    """`lora_r: 64, adapter: qlora`."""
    return ", ".join(f"{key}: {_plain(value, key)}" for key, value in keys.items())


def _plain(value: Any, key: str = "") -> str:  # Any: what YAML holds
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return "[" + ", ".join(_plain(item, key) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + shown(value) + "}"
    return "***" if looks_secret(key, value) else str(value)
