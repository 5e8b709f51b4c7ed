"""Formats that are a function of the user's, named by file: `type: ./prompts.py:render`.

    def render(row: dict, options: dict) -> list[dict]:
        return [{"text": row["question"] + "\\n", "train": False}, {"text": row["answer"], "train": True}]

The function gives segments as above, or messages {"role", "content"}, perhaps with "train", for the chat template. It
gets copies of the row and of the dataset's keys. The file is run as it is, with the rights of whoever runs ftl; what it
prints goes to stderr, because stdout may be read by a program.
"""

import hashlib
import re
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from functools import lru_cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from ftl.errors import ConfigError, Problem
from ftl.formats.example import Conversation, Example, FormatOptions, RowError, Segment
from ftl.formats.format import Format
from ftl.formats.jsontext import is_unicode
from ftl.formats.messages import read_conversation
from ftl.formats.rows import Row, shorten

Strategy = Callable[[dict[str, Any], dict[str, Any]], Any]  # Any: JSON, and whatever a user's function returns


def strategy_file(type: str | Mapping[str, Any] | None) -> str | None:
    """The path in a `type` such as ./prompts.py:render, as it is written; None for every other type."""
    found = _parts(type)
    return None if found is None else found[0]


def with_strategy_file(type: str, path: str) -> str:
    """The `type` with another path to the file."""
    found = _parts(type)
    assert found is not None, "the type names a file"
    return f"{path}:{found[1]}"


def python_format(type: str) -> Format:
    """The format of a `type` that names a file, relative to the working directory.

    Raises ConfigError when the file cannot be run or has no such function.
    """
    found = _parts(type)
    assert found is not None, "the type names a file"
    path, name = Path(found[0]), found[1]
    try:
        return _load(path, name, hashlib.sha256(path.read_bytes()).hexdigest())
    except OSError as e:
        raise ConfigError(Problem(f"type = {type}", f"{path} cannot be read: {e.strerror}")) from e


def _parts(type: str | Mapping[str, Any] | None) -> tuple[str, str] | None:
    match = re.fullmatch(r"(.+\.py):(\w+)", type) if isinstance(type, str) else None
    return None if match is None else (match[1], match[2])


@lru_cache(maxsize=8)
def _load(path: Path, name: str, sha256: str) -> Format:
    spec = spec_from_file_location(f"ftl_strategy_{sha256[:16]}", path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look a module up by its name
    try:
        with redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as e:  # the user's program may raise anything
        raise ConfigError(Problem(_place(e, path), _said(e), remedy="the file must run by itself")) from e
    function = vars(module).get(name)
    if not callable(function):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ConfigError(Problem(str(path), f"has no function {name}", f"has {', '.join(names) or 'none'}"))

    def read(row: Row, options: FormatOptions) -> Example | Conversation:
        return _rendered(_call(function, row, options, path), options, f"{path}:{name}")

    return Format(read, needs_template=None, program_sha256=sha256)


def _call(function: Strategy, row: Row, options: FormatOptions, path: Path) -> Any:
    try:
        with redirect_stdout(sys.stderr):
            return function(dict(row), asdict(options))
    except (Exception, SystemExit) as e:  # the user's program may raise anything
        raise RowError(f"{_place(e, path)}: {_said(e)}") from e


def _rendered(given: Any, options: FormatOptions, who: str) -> Example | Conversation:
    if isinstance(given, list) and given and all(isinstance(part, dict) for part in given):
        if not all(is_unicode(value) for part in given for value in part.values() if isinstance(value, str)):
            raise RowError(f"{who} gave half of a surrogate pair: every text must be valid Unicode")
        if all("text" in part for part in given):
            return Example(tuple(_segment(part, position, who) for position, part in enumerate(given)))
        if all("role" in part for part in given):
            keys = {"role": "role", "content": "content"}
            options = replace(
                options, field_messages="messages", message_property_mappings=keys, message_field_training="train"
            )
            return read_conversation({"messages": given}, options)
    allowed = "must be a list of segments {text, train} or of messages {role, content}"
    raise RowError(f"{who} gave {shorten(given)}: {allowed}, with at least one")


def _segment(part: dict[str, Any], position: int, who: str) -> Segment:
    text, train = part["text"], part.get("train")
    if not isinstance(text, str):
        raise RowError(f"{who} gave segment {position} with text = {shorten(text)}: must be text")
    if not isinstance(train, bool):
        raise RowError(f"{who} gave segment {position} with train = {shorten(train)}: must be True or False")
    return Segment(text, train)


def _place(error: BaseException, path: Path) -> str:
    """File and line of the user's code where it went wrong."""
    if isinstance(error, SyntaxError):
        return f"{path}:{error.lineno}" if error.lineno else str(path)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename) == path.absolute()]
    return f"{path}:{lines[-1]}" if lines else str(path)


def _said(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {' '.join(text.split())}"
