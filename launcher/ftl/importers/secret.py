"""Secrets in what another program was given: told by names and forms, never shown."""

import re
from collections.abc import Sequence
from typing import Any

from ftl.redact import is_secret_name
from ftl.yamlfile import secret_problems

_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.+)", re.S)


def is_secret(name: str, value: str = "") -> bool:
    """Whether a variable is a secret, by its name or by the form of its value."""
    return is_secret_name(name) or looks_secret(name, value)


def looks_secret(key: str, value: Any) -> bool:  # Any: what YAML holds
    """Whether the value of a flag or key is a secret."""
    return isinstance(value, str) and (key == "token" or bool(secret_problems({key: value}, lambda loc: "")))


def masked(words: Sequence[str]) -> list[str]:
    """The words of a command with *** in the place of every secret."""
    shown: list[str] = []
    flag = ""
    for word in words:
        name, equals, value = word.partition("=")
        if word.startswith("-") and equals:
            shown.append(f"{name}=***" if looks_secret(_key(name), value) else word)
        elif not word.startswith("-") and (looks_secret(flag, word) or "login" in shown):
            shown.append("***")
        elif (assignment := _ASSIGNMENT.fullmatch(word)) and is_secret(assignment[1], assignment[2]):
            shown.append(f"{assignment[1]}=***")
        else:
            shown.append(word)
        flag = _key(word) if word.startswith("-") and not equals else ""
    return shown


def without_secrets(words: Sequence[str]) -> list[str]:
    """The words without secrets and the flags that give them."""
    kept: list[str] = []
    for word, shown in zip(words, masked(words), strict=True):
        if word == shown:
            kept.append(word)
        elif shown == "***" and kept and kept[-1].startswith("-"):
            kept.pop()
    return kept


def _key(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")
