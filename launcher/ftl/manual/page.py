"""The manual page of one key, and an example of it."""

import json
import sys
from collections.abc import Mapping
from typing import Any

import yaml

from ftl.manual.entries import SECTIONS, Entry, is_default_active

# For keys whose kind says little of what stands there.
_EXAMPLES: Mapping[str, Any] = {  # Any: what YAML holds
    "base_model": "HuggingFaceTB/SmolLM2-135M",
    "chat_template": "chatml",
    "chat_template_kwargs": {"enable_thinking": False},
    "datasets": [{"path": "data.jsonl", "type": "alpaca"}],
    "datasets.chat_template": "chatml",
    "datasets.data_files": ["part-1.jsonl", "part-2.jsonl"],
    "datasets.field_messages": "conversations",
    "datasets.message_property_mappings": {"role": "from", "content": "value"},
    "datasets.path": "data.jsonl",
    "datasets.roles": {"assistant": ["gpt", "model"]},
    "datasets.split": "train[:10%]",
    "datasets.type": "chat_template",
    "datasets.type.format": "Question: {instruction} Answer:",
    "eot_tokens": ["<|im_end|>"],
    "learning_rate": 0.0002,
    "lora_modules_to_save": ["embed_tokens", "lm_head"],
    "lora_target_modules": ["q_proj", "v_proj"],
    "pretraining_dataset": [{"path": "texts.jsonl"}],
    "special_tokens": {"pad_token": "<pad>"},
    "special_tokens.pad_token": "<pad>",
    "test_datasets": [{"path": "held-out.jsonl", "type": "alpaca"}],
    "tokens": ["<tool>", "</tool>"],
    "val_set_size": 0.05,
    "warmup_ratio": 0.03,
}
_BY_KIND: Mapping[str, Any] = {  # Any: what YAML holds
    "true or false": True,
    "a whole number": 10,
    "a number": 0.1,
    "a list of texts": ["first", "second"],
    "a mapping": {"key": "value"},
    "text": "text",
}


def page(entry: Entry) -> list[tuple[str, str]]:
    """What is known of a key, as pairs of a heading and a text."""
    if entry.table == "derived":
        facts = [
            ("meaning", entry.meaning),
            ("takes", entry.kind),
            ("default", shown_default(entry)),
            ("part", SECTIONS.get(entry.section or "", "")),
            ("example", example(entry)),
        ]
    elif entry.table == "convert":
        facts = [("today", entry.becomes), ("why", entry.meaning)]
    else:
        facts = [("ignored" if entry.table == "ignored" else "refused", entry.meaning)]
    facts.append(("also as", ", ".join(entry.older)))
    return [(heading, text) for heading, text in facts if text]


def shown_default(entry: Entry) -> str:
    """What holds where the key is left out, as it would stand in a file."""
    is_empty = entry.default in (None, "", [], {}) or (
        isinstance(entry.default, dict) and not any(entry.default.values())
    )
    return "none" if is_empty else _dump(entry.default)


def example(entry: Entry) -> str:
    """The key in a file, with the mappings around it."""
    if not entry.kind:
        return ""
    value = _EXAMPLES.get(entry.name, entry.default if is_default_active(entry.default) else _sample(entry.kind))
    *parents, key = entry.name.split(".")
    lines = [f"{key}: {_dump(value)}"]
    for parent in reversed(parents):
        lines = [f"{parent}:", *(f"  - {line}" if parent == "datasets" else f"  {line}" for line in lines)]
        lines = [line.replace("  -   ", "      ") for line in lines]
    return "\n".join(lines)


def _sample(kind: str) -> Any:  # Any: what YAML holds
    first = kind.partition(", ")[0]
    return _BY_KIND.get(first, first.partition(" | ")[0])


def _dump(value: Any) -> str:  # Any: what YAML holds
    if isinstance(value, str) and "\n" in value:
        return json.dumps(value)  # YAML's own quotes would break the line
    dumped: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=sys.maxsize)
    return dumped.removesuffix("...\n").strip()
