"""Keys and values of one entry of `datasets` that say in older words what today's keys say."""

from typing import Any

from ftl.config.dialect import Aside, Conversion, Convert, Values
from ftl.config.tables.aside import aside, unbuilt
from ftl.formats.example import DEFAULT_ROLES

_TEMPLATES = {
    "chatml": "chatml",
    "llama-3": "llama3",
    "llama3": "llama3",
    "alpaca": "alpaca",
    "gemma": "gemma",
    "mistral": "mistral_v1",
    "metharme": "metharme",
}
"""Conversations of FastChat, which sharegpt took, and the chat template that writes the same."""


def _message_field(role: str) -> Convert:
    return lambda value, given: {"message_property_mappings": {role: value}}


_ROLE_KEYS = {"user": "field_human", "assistant": "field_model"}


def _role(name: str) -> Convert:
    """A further name that the data uses for a role of the template; beside `roles` only what those say counts."""

    def convert(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
        if "roles" in given:
            return {"roles": {name: [value]}}
        said = {role: given[key] for role, key in _ROLE_KEYS.items() if key in given}
        usual = {role: [item for item in names if item not in said.values()] for role, names in DEFAULT_ROLES.items()}
        return {"roles": {role: [*names, *([said[role]] if role in said else [])] for role, names in usual.items()}}

    return convert


def _conversation(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    if not isinstance(value, str) or value not in _TEMPLATES:
        raise ValueError("no chat template writes this; give one as `chat_template_jinja`, or remove the key")
    return {"chat_template": _TEMPLATES[value]}


def _train_on_split(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    return {"split": value}


def _format(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    """`type`, with every form of sharegpt as a chat template over the same columns."""
    if not isinstance(value, str) or not is_sharegpt(value):
        return {"type": value}
    has_role_key = value.endswith(".load_role")
    properties = {"role": "role" if has_role_key else "from", "content": "value"}
    older = {"role": "message_field_role", "content": "message_field_content"}
    said = given.get("message_property_mappings")
    taken = said if isinstance(said, dict) else {}
    mapping = {key: name for key, name in properties.items() if key not in taken and older[key] not in given}
    messages = {} if "field_messages" in given else {"field_messages": "conversations"}
    return {"type": "chat_template", **messages, **({"message_property_mappings": mapping} if mapping else {})}


def is_sharegpt(name: str) -> bool:
    """Whether `name` is a form of the type that 2023 wrote conversations with."""
    family = name.partition(":")[0].partition(".")[0]
    return family in ("sharegpt", "sharegpt_simple")


_MAPPING = "one mapping holds what the keys of a message are called"
_ROLES = "one mapping holds what the data calls each role"

CONVERT: dict[str, Conversion] = {
    "message_field_role": Conversion(_message_field("role"), "message_property_mappings: {role: ...}", _MAPPING),
    "message_field_content": Conversion(
        _message_field("content"), "message_property_mappings: {content: ...}", _MAPPING
    ),
    "field_human": Conversion(_role("user"), "roles: {user: [...]}", _ROLES),
    "field_model": Conversion(_role("assistant"), "roles: {assistant: [...]}", _ROLES),
    "conversation": Conversion(
        _conversation, "chat_template", "conversations are written by chat templates", is_noted=True
    ),
    "train_on_split": Conversion(_train_on_split, "split", "axolotl documents it and reads `split` alone"),
}

REFUSED: dict[str, Aside] = {
    **unbuilt(
        ("input_format", "input_transform"),
        "formats are written as a mapping under `type`, or as a function of your own",
    ),
    **aside(("trust_remote_code",), "datasets are data: no code of theirs is run"),
}

IGNORED: dict[str, Aside] = {
    **aside(("preprocess_shards",), "rows are read and tokenised piece by piece, whatever their number"),
}

VALUES: dict[str, Conversion] = {
    "type": Conversion(
        _format,
        "type: chat_template",
        "a conversation is written by a chat template, the tokenizer's own unless `chat_template` names one",
        is_noted=True,
    ),
}
