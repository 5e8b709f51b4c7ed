"""Secrets in text that somebody will read: values of the environment and what has the form of one become ***.

Everything that ftl shows, and all that a job writes about itself, goes through `redacted`: messages, events, exit.json,
log.txt, what trackers are told. Values shorter than 6 characters are words, and stay.
"""

import base64
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote, quote_plus

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

_URL_SAFE = str.maketrans("+/", "-_")

_UNSETTLED = re.compile(r"(?:authorization\W{1,4}\w*\s*)?\S*\Z", re.I)
_UNSETTLED_LENGTH = 4096
"""No form of a secret that has no known value is longer."""

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
    for value in _known_forms():
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


def settled(text: str) -> int:
    """How many characters at its start can be redacted by themselves: no later text makes them part of a secret.

    Lines that are over are, but for those of a secret of several; the last word of a line that goes on is not.
    """
    end = max(text.rfind("\n"), text.rfind("\r")) + 1
    over = text[:end]
    for form in _known_forms():
        ends = [match.end() for match in re.finditer("\n", form[:-1])]
        held = max((length for length in ends if over.endswith(form[:length])), default=0)
        end = min(end, len(over) - held)
    return end


def settled_words(text: str) -> int:
    """As `settled`, of a line that nobody may end: up to its last word, and before what may begin a secret."""
    found = _UNSETTLED.search(text, max(0, len(text) - _UNSETTLED_LENGTH))
    assert found is not None, "it matches the empty text at the end"
    end = found.start()
    for form in _known_forms():
        longest = min(len(form) - 1, len(text))
        held = next((length for length in range(longest, 0, -1) if text.endswith(form[:length])), 0)
        end = min(end, len(text) - held)
    return end


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


def _known_forms() -> list[str]:
    """Longest first: one may be part of another."""
    return sorted(_values | _secrets_in(os.environ, _named), key=len, reverse=True)


def _secrets_in(environment: Mapping[str, str], named: set[str]) -> set[str]:
    """The values that are secret, in each form in which they may turn up."""
    found: set[str] = set()
    for name, value in environment.items():
        if name in named or (is_secret_name(name) and not _is_path(value)):
            found |= _forms(value)
    return found


@lru_cache(maxsize=1024)
def _forms(value: str) -> frozenset[str]:
    plain = value.strip()
    lines = {line.strip() for line in value.splitlines() if len(line.strip()) >= _MIN_LINE}
    quoted = {quoter(value, errors="surrogateescape") for quoter in (partial(quote, safe=""), quote, quote_plus)}
    quoted |= {re.sub("%..", lambda code: code[0].lower(), form) for form in quoted}
    escaped = {repr(value)[1:-1], json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    found = {value, plain} | lines | quoted | escaped
    if len(plain) >= _MIN_LENGTH:
        found |= {form for text in (value, plain) for form in _in_base64(text.encode(errors="surrogateescape"))}
    return frozenset(form for form in found if len(form) >= _MIN_LENGTH)


def _in_base64(secret: bytes) -> Iterator[str]:
    """What base64 makes of it at each of the three places it can begin, whatever stands before and after it."""
    for skipped in range(3):
        first, end = -(-8 * skipped // 6), 8 * (skipped + len(secret)) // 6  # characters that are all its own
        encoded = base64.b64encode(b"\0" * skipped + secret).decode()[first:end]
        yield encoded
        yield encoded.translate(_URL_SAFE)


def _is_path(value: str) -> bool:
    """A variable such as GOOGLE_APPLICATION_CREDENTIALS says where the secret is."""
    return value.startswith(("/", "~")) and Path(value).expanduser().exists()
