"""The fields behind the keys, as JSON Schema and in words."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from ftl.config.flat import keys
from ftl.config.train import TrainConfig

Node = Mapping[str, Any]  # Any: JSON

_NOTES = ("title", "description", "default")


@cache
def top_fields() -> Mapping[str, Node]:
    """Every derived key of the top level -> the schema of its field, as strict as the section is."""
    found = {}
    for key in keys().values():
        section, name = key.loc
        owners = (_definition(form) for form in forms(_schema()["properties"][section]))
        found[key.key] = next(owner["properties"][name] for owner in owners if name in owner["properties"])
    return found


@cache
def section_fields(name: str) -> Mapping[str, Node]:
    """The fields of a section whose names are its keys: DatasetSection, InlineType, or one of flat.mappings()."""
    fields: Mapping[str, Node] = _schema()["$defs"][name]["properties"]
    return fields


@cache
def required_keys() -> tuple[str, ...]:
    """The keys of the top level that no config can be without."""
    sections = {name: _schema()["properties"][name] for name in _schema()["required"]}
    needed = {(name, field) for name, node in sections.items() for field in _definition(node).get("required", ())}
    return tuple(key.key for key in keys().values() if key.loc in needed)


def forms(node: Node) -> list[Node]:
    """What a value may be: unions taken apart, null left out."""
    found: list[Node] = node.get("anyOf", [{name: value for name, value in node.items() if name not in _NOTES}])
    return [form for form in found if form.get("type") != "null"]


def in_words(node: Node) -> str:
    """`a whole number, at least 1`; `a list of texts, or text`."""
    return ", or ".join(dict.fromkeys(_form_in_words(form) for form in forms(node)))


_KINDS = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "string": "text"}
_MANY = {"integer": "whole numbers", "number": "numbers", "boolean": "booleans", "string": "texts"}
_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def _form_in_words(form: Node) -> str:
    if "$ref" in form:
        return "a mapping"
    if "enum" in form or "const" in form:
        return " | ".join(str(choice) for choice in form.get("enum", [form.get("const")]))
    kind = form.get("type", "")
    if kind == "array":
        return f"a list of {_MANY.get(form['items'].get('type', ''), 'mappings')}"
    if kind == "object":
        return "a mapping"
    bounds = [f"{word} {form[bound]}" for bound, word in _BOUNDS.items() if bound in form]
    return ", ".join([_KINDS.get(kind, "a value"), *bounds])


@cache
def _schema() -> Node:
    return TrainConfig.model_json_schema()


def _definition(form: Node) -> Node:
    name = form["$ref"].rpartition("/")[2]
    found: Node = _schema()["$defs"][name]
    return found
