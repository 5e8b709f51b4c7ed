"""A shell command that starts a training script, taken apart. Nothing of it is run."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ftl.errors import ConfigError, Problem

_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.S)
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")
_SEPARATORS = {"&&", "||", ";", "|", "&", ";;", "(", ")"}
_NONE: Mapping[str, str] = {}
_SWITCHES = frozenset(("standalone", "multi_gpu", "no_python", "use_deepspeed", "use_fsdp", "cpu", "tpu", "debug"))
"""Flags of launchers that take no value."""


@dataclass(frozen=True)
class Command:
    """`VAR=x torchrun --nproc_per_node=2 train.py --flag value`."""

    env: Mapping[str, str] = field(default_factory=dict)
    launcher: tuple[str, ...] = ()
    """`torchrun`, or `accelerate launch`; empty where the script is started by itself."""
    launcher_flags: Mapping[str, Any] = field(default_factory=dict)  # Any: text, number, bool or a list of them
    script: str = ""
    flags: Mapping[str, Any] = field(default_factory=dict)  # Any: text, number, bool or a list of them
    """Without the dashes, `-` as `_`; true where no value stands."""
    stray: tuple[str, ...] = ()
    """Arguments of the script that no flag stands before."""


def parse_command(text: str, scripts: tuple[str, ...], others: Mapping[str, str] = _NONE) -> Command:
    """The command in `text` that starts one of `scripts`; variables that the text sets are put in.

    Raises ConfigError when there is none, or the quotes do not match. `others` are scripts of the same program that
    train nothing, each with what is done in its place.
    """
    told: Problem | None = None
    env: dict[str, str] = {}
    for words in statements(text):
        rest = list(words[1:] if words[0] in ("export", "env") else words)
        while rest and _ASSIGNMENT.fullmatch(rest[0]):
            name, _, value = rest.pop(0).partition("=")
            env[name] = expand(value, env)
        rest = [expand(word, env) for word in rest]
        names = [word.rpartition("/")[2] for word in rest]
        start = next((at for at, name in enumerate(names) if name in scripts), None)
        other = next((name for name in names if name in others), None)
        told = told or (Problem(other, others[other]) if other and start is None else None)
        if start is not None:
            flags, stray = _flags(rest[start + 1 :])
            launcher, launcher_flags = _launcher(rest[:start])
            return Command(env, launcher, launcher_flags, rest[start], flags, stray)
    if told is not None:
        raise ConfigError(told)
    remedy = "give the whole command in quotes, such as 'python " + scripts[0] + " --flag value'"
    raise ConfigError(Problem("command", allowed=f"starts no {' or '.join(scripts)}", remedy=remedy))


def statements(text: str) -> list[list[str]]:
    """The words of each command in a piece of shell, comments and redirections left out."""
    joined = re.sub(r"\\\r?\n|\s\d>&\d", " ", text)
    found: list[list[str]] = []
    for line in joined.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError as e:
            raise ConfigError(Problem("command", line.strip()[:60], f"cannot be read: {str(e).lower()}")) from e
        found += _split(words)
    return found


def expand(word: str, env: Mapping[str, str]) -> str:
    """`word` with the variables of `env` put in; others stay as they are."""
    return _VARIABLE.sub(lambda match: env.get(match[1] or match[2], match[0]), word)


def scalar(text: str) -> Any:  # Any: text, number or bool
    """A word of the command line as YAML would have it: True is true, 8e-5 a number."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.lower() == "none":
        return None
    if re.fullmatch(r"[+-]?\d+", text):
        return int(text)
    try:
        return float(text) if re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", text, re.I) else text
    except ValueError:
        return text


def _split(words: list[str]) -> list[list[str]]:
    found: list[list[str]] = [[]]
    skipped = False
    for word in words:
        if word in _SEPARATORS:
            found.append([])
        elif set(word) <= set("<>&") and word:
            skipped = True  # the file that a redirection names
            continue
        elif not skipped:
            found[-1].append(word)
        skipped = False
    return [statement for statement in found if statement]


def _launcher(words: list[str]) -> tuple[tuple[str, ...], dict[str, Any]]:  # Any: text, number, bool or a list
    names = [word for word in words if not word.startswith("-")][:2]
    is_pair = len(names) == 2 and names[0].endswith("accelerate") and names[1] == "launch"
    names = names if is_pair else names[:1]
    rest = [word for word in words if word not in names]
    if rest[:1] == ["-m"]:  # python -m torch.distributed.run
        names, rest = rest[1:2], rest[2:]
    return tuple(name.rpartition("/")[2] for name in names), _flags(rest, _SWITCHES)[0]


def _flags(words: list[str], switches: frozenset[str] = frozenset()) -> tuple[dict[str, Any], tuple[str, ...]]:
    flags: dict[str, Any] = {}  # Any: text, number, bool or a list of them
    stray: list[str] = []
    name = ""
    for word in words:
        if re.match(r"--?[A-Za-z]", word):
            name, equals, value = word.lstrip("-").partition("=")
            name = name.replace("-", "_")
            flags[name] = _value(value) if equals else True
            name = "" if equals or name in switches else name
        elif not name:
            stray.append(word)
        elif flags[name] is True:
            flags[name] = _value(word)
        else:
            before = flags[name] if isinstance(flags[name], list) else [flags[name]]
            flags[name] = [*before, scalar(word)]
    return flags, tuple(stray)


def _value(text: str) -> Any:  # Any: text, number, bool or a list of them
    """`[q_proj,v_proj]` is a list of two."""
    if text.startswith("[") and text.endswith("]"):
        items = (item.strip(" '\"") for item in text[1:-1].split(","))
        return [scalar(item) for item in items if item]
    return scalar(text)
