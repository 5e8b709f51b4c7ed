"""Secrets in text that somebody will read: values of the environment and what has the form of one become ***.

Everything that ftl shows, and all that a job writes about itself, goes through `redacted`: messages, events, exit.json,
the Python side of log.txt, what trackers are told. Values shorter than 6 characters are words, and stay.
"""

import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

MASK = "***"
_MIN_LENGTH = 6
_MIN_LINE = 16
"""Lines of a secret of several, such as a private key, are secrets by themselves from this length on."""

_NAME = re.compile(r"(^|_)(TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASS|PWD|AUTH|CREDENTIALS)(_|$)")
_SECRET_FILES = (".netrc", ".git", ".ssh", ".aws", "id_rsa", "id_ed25519")
_HARMLESS_NAMES = ("PWD", "SSH_AUTH_SOCK")

# Forms of tokens. Narrower than what a config may not hold: hf_raise_for_status is a function.
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:hf|api_org|gh[pousr])_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,}"
    r"|sk-[A-Za-z0-9_-]{16,}|(?:AKIA|ASIA)[A-Z0-9]{16})"
)
_USER = re.compile(r"(?<=://)[^/\s:@'\"<>]*:[^/\s@'\"<>]+(?=@)")
_QUERY = re.compile(
    r"([?&](?:X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|AWSAccessKeyId|GoogleAccessId|Key-Pair-Id"
    r"|Signature|Policy|sig|token|access_token|auth|key|api_key|password|secret)=)[^&#\s'\"<>]+",
    re.I,
)
_HEADER = re.compile(r"(authorization\W{1,4}(?:bearer|basic|token)\s+)[^\s'\",]+", re.I)

_named: set[str] = set()
_values: set[str] = set()


def hide(names: Iterable[str], environment: Mapping[str, str] | None = None) -> None:
    """Have this process redact the values of these variables too, whatever their names look like.

    With `environment` the values are those in it, and those of its variables that are secrets by their names;
    else whatever they are in this process's own environment.
    """
    if environment is None:
        _named.update(names)
    else:
        _values.update(_secrets_in(environment, set(names)))


def redacted(text: str) -> str:
    """`text` with *** in the place of every secret that this process knows or that looks like one."""
    for value in sorted(_values | _secrets_in(os.environ, _named), key=len, reverse=True):
        text = text.replace(value, MASK)
    text = _TOKEN.sub(MASK, text)
    if "://" in text:
        text = _USER.sub(MASK, text)
    text = _QUERY.sub(rf"\1{MASK}", text)
    return _HEADER.sub(rf"\1{MASK}", text)


def redacted_data(value: Any) -> Any:  # Any: JSON
    """The same for all texts in JSON-like data, keys apart."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {key: redacted_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [redacted_data(item) for item in value]
    return value


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    """Whether a variable is a secret by its name."""
    return name not in _HARMLESS_NAMES and _NAME.search(name) is not None


def is_secret_file(name: str) -> bool:
    """Whether a file or directory of that name is left out of whatever goes to another machine."""
    return name in _SECRET_FILES or name.startswith(".env")


def has_secret_form(text: str) -> bool:
    """Whether a text holds a token, a password in an address, or a signed query."""
    return any(pattern.search(text) for pattern in (_TOKEN, _USER, _QUERY, _HEADER))


class RedactedStream:
    """A text stream whose every write is redacted. What is written to its descriptor directly is not."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(redacted(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:  # Any: whatever the stream has
        return getattr(self._stream, name)


def _secrets_in(environment: Mapping[str, str], named: set[str]) -> set[str]:
    """The values that are secret, in each form in which they may turn up."""
    found: set[str] = set()
    for name, value in environment.items():
        if name in named or (is_secret_name(name) and not _is_path(value)):
            found |= _forms(value)
    return found


@lru_cache(maxsize=1024)
def _forms(value: str) -> frozenset[str]:
    whole = {value, value.strip()}
    lines = {line.strip() for line in value.splitlines() if len(line.strip()) >= _MIN_LINE}
    escaped = {quote(value, safe=""), quote(value), repr(value)[1:-1]}
    return frozenset(form for form in whole | lines | escaped if len(form) >= _MIN_LENGTH)


def _is_path(value: str) -> bool:
    """A variable such as GOOGLE_APPLICATION_CREDENTIALS says where the secret is."""
    return value.startswith(("/", "~")) and Path(value).expanduser().exists()
