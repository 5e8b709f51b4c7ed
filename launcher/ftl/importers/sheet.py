"""What an import has made so far: the config, the cloud file, and a line for each thing that was given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ftl.importers.commandline import Command
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


class FlagSheet(Imported):
    """An import of a command line: flags are taken one after the other, and what nobody took is reported."""

    def __init__(self, command: Command) -> None:
        super().__init__()
        self._flags = dict(command.flags)
        self._asked: set[str] = set()
        for argument in command.stray:
            self.drop(argument, "an argument without a flag; the program takes none")

    def take(self, flag: str, default: Any = None) -> tuple[Any, str]:  # Any: what YAML holds
        """The value of a flag, or the program's own default, and how to show it. It counts as read."""
        self._asked.add(flag)
        if flag in self._flags:
            value = self._flags.pop(flag)
            value = bool(value) if isinstance(default, bool) and value in (0, 1) else value
            return value, f"--{flag}" if value is True else f"--{flag} {_plain(value)}"
        return default, f"{flag} = {_plain(default)}, its default"

    def copy(self, flag: str, key: str, default: Any = None, why: str = "") -> None:  # Any: what YAML holds
        """The flag's value under `key`; the default too, if the program has one."""
        value, given = self.take(flag, default)
        if value is not None and value != "":
            self.place(given, {key: value}, why)

    def drop_rest(self, reasons: Mapping[str, str]) -> None:
        """Report the flags that nobody took: with the reason where it is known, else with what may have been meant."""
        known = {*self._asked, *reasons}
        for flag in list(self._flags):
            _, given = self.take(flag)
            remedy = suggestion(flag, known, "--{}")
            self.drop(
                given, reasons.get(flag) or "; ".join(["not known to this import", *([remedy] if remedy else [])])
            )


def shown(keys: Mapping[str, Any]) -> str:  # Any: what YAML holds
    """`lora_r: 64, adapter: qlora`."""
    return ", ".join(f"{key}: {_plain(value)}" for key, value in keys.items())


def _plain(value: Any) -> str:  # Any: what YAML holds
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return "[" + ", ".join(_plain(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_plain(item)}" for key, item in value.items()) + "}"
    return str(value)
