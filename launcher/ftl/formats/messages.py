"""The messages of a row, with their roles translated and checked."""

import json
from collections.abc import Mapping
from typing import Any

from ftl.formats.example import Conversation, FormatOptions, RowError, Turn


def read_conversation(row: Mapping[str, Any], options: FormatOptions) -> Conversation:
    """The conversation in a row; the messages may be a list or the JSON text of one.

    Raises RowError when the messages or one of their roles or contents has another type than expected.
    """
    key = options.field_messages
    if key not in row:
        raise RowError(
            f"no column `{key}`: the row has {_names(row)}; set `field_messages` to the column with the messages"
        )
    messages = _parse_list(row[key], key)
    if not messages:
        raise RowError(f"`{key}` is empty: must hold at least one message; remove the row")
    role_of = {name: role for role, names in options.role_names.items() for name in names}
    trained = {role_of.get(name, name) for name in options.roles_to_train}
    turns = []
    for position, message in enumerate(messages):
        where = f"{key}[{position}]"
        if not isinstance(message, dict):
            raise RowError(
                f"{where} is {_kind(message)}: must be an object with `{options.role_key}` and `{options.content_key}`"
            )
        name = _text(message, options.role_key, where, "role")
        role = role_of.get(name, name)
        turns.append(
            Turn(
                role=role,
                content=_text(message, options.content_key, where, "content"),
                train=options.train_on_inputs or role in trained,
                extra=_extra(message, options),
            )
        )
    return Conversation(tuple(turns), options.train_on_eos)


def _parse_list(value: Any, key: str) -> list[Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as e:
            raise RowError(f"`{key}` is a text that is not JSON ({e}): must be a list of messages") from e
    if not isinstance(value, list):
        raise RowError(f"`{key}` is {_kind(value)}: must be a list of messages")
    return value


def _text(message: Mapping[str, Any], key: str, where: str, what: str) -> str:
    if key not in message:
        raise RowError(
            f"{where} has no `{key}`: it has {_names(message)}; "
            f"set `message_property_mappings: {{{what}: ...}}` to the key with the {what}"
        )
    value = message[key]
    if not isinstance(value, str):
        raise RowError(f"{where}.{key} is {_kind(value)}: must be text")
    return value


def _extra(message: Mapping[str, Any], options: FormatOptions) -> dict[str, Any]:
    taken = {"role", "content", options.role_key, options.content_key}
    return {key: value for key, value in message.items() if key not in taken and value is not None}


def _names(mapping: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}`" for name in mapping) or "nothing"


def _kind(value: Any) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "a list"}
    return names.get(type(value), "an object")
