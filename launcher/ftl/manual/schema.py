"""The flat dialect as a JSON Schema, for editors that complete and check while one types.

It takes today's keys and the older ones that become them, one item where a list is wanted, and null for any key.
What keys say together is left to `ftl check`.
"""

import itertools
from collections.abc import Mapping
from typing import Any

from ftl.config.dialect import Aside, Conversion, Dialect
from ftl.config.flat import DATASET, TRAIN, mappings
from ftl.config.tables.nested import NESTED
from ftl.config.tables.values import ATTENTIONS, OPTIMIZERS, SCHEDULES
from ftl.manual.fields import Node, forms, required_keys, section_fields, top_fields

# Values of a key that are read besides those of its field: what the conversions take.
_OLDER_VALUES: Mapping[str, tuple[Any, ...]] = {  # Any: JSON
    "adapter": (False,),
    "attn_implementation": tuple(old for old, new in ATTENTIONS.items() if isinstance(new, str)),
    "bf16": ("auto",),
    "eval_strategy": (False,),
    "evals_per_epoch": (0,),
    "activation_offloading": ("legacy", "disk", "hidden_states"),
    "gradient_checkpointing": ("unsloth", "offload", "offload_disk"),
    "lr_scheduler": tuple(old for old, new in SCHEDULES.items() if isinstance(new, str)),
    "optimizer": tuple(old for old, new in OPTIMIZERS.items() if isinstance(new, str)),
    "resume_from_checkpoint": (False,),
    "rl": (False,),
    "save_strategy": (False,),
    "saves_per_epoch": (0,),
}
_OLDER_FORMS: Mapping[str, tuple[Node, ...]] = {
    "optim_args": ({"type": "string"},),
    "pretraining_dataset": ({"type": "string"}, {"type": "array", "items": {"type": "string"}}),
    "tokens": ({"$ref": "#/$defs/SpecialTokens"},),
    "warmup_steps": ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},),
}


def config_schema() -> dict[str, Any]:  # Any: JSON
    """The JSON Schema of a training config."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "ftl training config",
        **_mapping(_properties(TRAIN, top_fields())),
        "required": list(required_keys()),
        "$defs": {
            "DatasetSection": _mapping(_properties(DATASET, section_fields("DatasetSection"))),
            **{name: _mapping(_loosened(section_fields(name))) for name in ("InlineType", "RateGroup")},
            **{
                section.__name__: _mapping(_loosened(section_fields(section.__name__)))
                for section in mappings().values()
            },
        },
    }


def _mapping(properties: Mapping[str, Node]) -> dict[str, Any]:  # Any: JSON
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _properties(dialect: Dialect, fields: Mapping[str, Node]) -> dict[str, Node]:
    """A node for each key of the dialect, honoured ones first."""
    own = _loosened(fields) | {name: _set_aside(aside) for name, aside in dialect.refused.items()}
    return {
        **{name: own[name] for name in fields},
        **{name: _converted(name, conversion, own) for name, conversion in dialect.convert.items()},
        **{name: own[name] for name in dialect.refused},
        **{name: _ignored(name, aside) for name, aside in dialect.ignored.items()},
    }


def _loosened(fields: Mapping[str, Node]) -> dict[str, Node]:
    return {name: _loose(node, name) for name, node in fields.items()}


def _loose(node: Node, name: str = "") -> Node:
    """`node` as a human may write it: null, one item in place of a list, older values."""
    accepted: list[Node] = []
    for wide in (*itertools.chain(*map(_wide, forms(node))), *_OLDER_FORMS.get(name, ())):
        accepted += [wide] if wide not in accepted else []
    choices = (*_OLDER_VALUES.get(name, ()), None)
    accepted = [{"enum": [*form["enum"], *choices]} if "enum" in form else form for form in accepted]
    if not any("enum" in form for form in accepted):
        accepted.append({"enum": list(choices)} if len(choices) > 1 else {"type": "null"})
    notes = {note: node[note] for note in ("description", "default") if node.get(note) not in (None, [], {})}
    return {**notes, **(accepted[0] if len(accepted) == 1 else {"anyOf": accepted})}


def _wide(form: Node) -> list[Node]:
    if "const" in form or "enum" in form:
        return [{"enum": list(form.get("enum", [form.get("const")]))}]
    if form.get("type") == "array":
        return [form, form["items"]]
    inner = form.get("additionalProperties")
    return [{**form, "additionalProperties": _loose(inner)}] if isinstance(inner, dict) else [form]


def _converted(name: str, conversion: Conversion, own: Mapping[str, Node]) -> Node:
    told = {"description": f"Today: {conversion.becomes}. {_sentence(conversion.reason)}", "deprecated": True}
    if _is_renamed(conversion) and conversion.becomes in own:
        node = {key: value for key, value in own[conversion.becomes].items() if key != "default"}
        choices = {"enum": [*_OLDER_VALUES.get(name, ()), *node["enum"]]} if "enum" in node else {}
        return {**node, **choices, **told}
    return {**told, "enum": [True, False, *_OLDER_VALUES.get(name, ()), None]} if conversion.is_bool else told


def _is_renamed(conversion: Conversion) -> bool:
    """Whether it hands any value on to one other key, as it is."""
    value = object()
    try:
        return conversion.convert(value, {}) == {conversion.becomes: value}
    except ValueError:
        return False


def _set_aside(aside: Aside) -> Node:
    """Only the values that ask for nothing are accepted."""
    harmless = [None, *aside.harmless, "", [], {}]
    return {"description": f"Refused: {aside.reason}.", "deprecated": True, "enum": harmless}


def _ignored(name: str, aside: Aside) -> Node:
    told = {"description": f"Ignored: {aside.reason}.", "deprecated": True}
    if name not in NESTED:
        return told
    return {**told, "properties": {key: {} for key in NESTED[name]}, "additionalProperties": False}


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
