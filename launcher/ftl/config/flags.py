"""Any config key as a flag of the command line: `--learning-rate 1e-4 --no-flash-attention --val-set-size=0`."""

import re
from collections.abc import Sequence

from ftl.config.flat import FlagKind, flag_kinds
from ftl.errors import ConfigError, Problem
from ftl.yamlfile import suggestion

_SWITCH_VALUES = {"true", "false", "yes", "no", "on", "off", "auto", "null", "full"}
_NUMBER = re.compile(r"-[0-9.].*")


def parse_flags(args: Sequence[str], others: Sequence[str] = ()) -> list[tuple[str, str]]:
    """(key, text of the value) of every flag, in order.

    `others` are options of the command itself, for "did you mean". Raises ConfigError with every flag that is wrong.
    """
    kinds = flag_kinds()
    found: list[tuple[str, str]] = []
    problems: list[Problem] = []
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        try:
            found.append(_flag(arg, rest, kinds, others))
        except ConfigError as e:
            problems += [problem for problem in e.problems if isinstance(problem, Problem)]
            if rest and not _is_option(rest[0]):
                rest.pop(0)  # the value of the flag that is wrong
    if problems:
        raise ConfigError(*problems)
    return found


def _flag(arg: str, rest: list[str], kinds: dict[str, FlagKind], others: Sequence[str]) -> tuple[str, str]:
    """The key and value of `arg`, whose value may be the first of `rest`, which is then taken off."""
    if not arg.startswith("--") or len(arg) < 3:
        raise ConfigError(Problem(arg, "unexpected argument", remedy="overrides look like --learning-rate 1e-4"))
    name, equals, value = arg[2:].partition("=")
    key = name.replace("-", "_")
    option = f"--{name}"
    if key not in kinds and key.startswith("no_") and kinds.get(key[3:], "value") != "value":
        if equals:
            raise ConfigError(Problem(option, "takes no value", remedy=f"write {option}, or --{name[3:]}={value}"))
        return key[3:], "false"
    if key not in kinds:
        raise ConfigError(_unknown(option, key, kinds, others))
    if equals:
        return key, value
    if kinds[key] == "switch":
        return key, rest.pop(0) if rest and rest[0].lower() in _SWITCH_VALUES else "true"
    if rest and not _is_option(rest[0]):
        return key, rest.pop(0)
    if kinds[key] == "either":
        return key, "true"
    raise ConfigError(Problem(option, "needs a value", remedy=f"write {option} VALUE"))


def _unknown(option: str, key: str, kinds: dict[str, FlagKind], others: Sequence[str]) -> Problem:
    if key.startswith("no_") and key[3:] in kinds:
        return Problem(option, "is no switch", remedy=f"write --{key[3:].replace('_', '-')}=null to leave the key out")
    names = [*others, *(f"--{name.replace('_', '-')}" for name in kinds)]
    return Problem(option, "unknown option", remedy=suggestion(option, names))


def _is_option(text: str) -> bool:
    return text.startswith("-") and len(text) > 1 and not _NUMBER.fullmatch(text)
