"""Values of a row that may be written as JSON text."""

import json
from typing import Any, TypeVar

from ftl.formats.example import RowError

T = TypeVar("T", list[Any], dict[str, Any])  # Any: the user's JSON

_KINDS = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list"}


def parse_json(value: Any, where: str, kind: type[T], needed: str) -> T:
    """The value itself, or what its JSON text says. Raises RowError where that is not of the kind."""
    if isinstance(value, str):
        value = _parsed(value, where, needed)
    if not isinstance(value, kind):
        raise RowError(f"{where} is {kind_of(value)}: must be {needed}")
    return value


def is_unicode(text: str) -> bool:
    """Whether no half of a surrogate pair is in it, which JSON can write and no tokenizer reads."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def without_nulls(value: Any) -> Any:
    """The value without the null entries of its objects, which columnar files add where rows differ in their keys."""
    if isinstance(value, dict):
        return {key: without_nulls(entry) for key, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [without_nulls(entry) for entry in value]
    return value


def _parsed(text: str, where: str, needed: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise RowError(f"{where} is a text that is not JSON ({e}): must be {needed}") from e
    if "\\ud" in text.lower() and not is_unicode(json.dumps(value, ensure_ascii=False)):
        raise RowError(f"{where} holds half of a \\ud... surrogate pair: every text must be valid Unicode")
    return value


def kind_of(value: Any) -> str:
    """What JSON calls the type of a value, for a sentence."""
    return _KINDS.get(type(value), "an object")
