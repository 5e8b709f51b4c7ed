"""The manual: one entry for every key that may stand in a training config."""

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ftl.config.dialect import Dialect, Table
from ftl.config.flat import DATASET, TRAIN, key_list, keys, mappings
from ftl.errors import ConfigError, Problem
from ftl.manual.fields import Node, in_words, section_fields, top_fields

SECTIONS: Mapping[str, str] = {
    "model": "Model and tokenizer",
    "data": "Data",
    "optim": "Optimizer and schedule",
    "rates": "Learning rates",
    "adapter": "Adapter",
    "objective": "Objective",
    "precision": "Precision and memory",
    "kernels": "Kernels",
    "parallel": "Several processes",
    "trained": "What a full fine-tune trains",
    "quant": "Quantisation of the frozen base",
    "rounding": "Few bits in training and after it",
    "output": "Saving, evaluation and logging",
    "evaluation": "The best model",
    "ray": "Ray",
    "harness": "Measuring with lm-eval",
    "watch": "Watching the training",
    "hub": "Hub",
    "tracking": "Trackers",
    "lr_groups": "One group of parameters, under `lr_groups`",
    "datasets": "One dataset",
    "datasets.type": "A format of one's own, under `type`",
    "special_tokens": "Special tokens",
    "fsdp_config": "Shards, under `fsdp_config`",
    "bnb_config_kwargs": "Options of bitsandbytes",
    "qat": "Rounding in training, under `qat`",
    "quantization": "Rounding of the finished model, under `quantization`",
}
"""The parts that honoured keys belong to, in the order of the manual."""


@dataclass(frozen=True)
class Entry:
    """What is known of one key."""

    name: str
    """As `ftl explain --key` takes it: lora_r, datasets.roles_to_train, special_tokens.pad_token."""
    table: Table
    section: str | None
    """Of SECTIONS; None unless the key is honoured."""
    kind: str
    """What a value may be, in words; empty unless the key is honoured."""
    default: Any  # Any: JSON
    meaning: str
    """What it does; for the other tables, why it is converted, refused or ignored."""
    becomes: str = ""
    """What to write today in place of a converted key."""
    older: tuple[str, ...] = ()
    """Keys that become this one."""


@cache
def entries() -> Mapping[str, Entry]:
    """Every key by its dotted name: the honoured ones in the order of SECTIONS, then the others."""
    honoured = [*_honoured_at_the_top(), *_honoured_below("datasets", "DatasetSection")]
    honoured += [*_honoured_below("datasets.type", "InlineType"), *_honoured_below("lr_groups", "RateGroup")]
    for key, section in mappings().items():
        honoured += _honoured_below(key, section.__name__)
    found = {entry.name: entry for entry in (*honoured, *_others(TRAIN, ""), *_others(DATASET, "datasets."))}
    return found | {entry.name: entry for entry in _nested() if entry.name not in found}


def find(name: str) -> Entry:
    """The entry of a key by its name, dotted or its last part alone.

    Raises ConfigError, with the closest name, when there is none.
    """
    wanted = re.sub(r"\.\d+(?=\.)", "", name.replace("-", "_"))  # datasets.0.path
    wanted = re.sub(r"^(test_datasets|pretraining_dataset)\.", "datasets.", wanted)
    found = entries()
    forms = [wanted, f"{wanted.rpartition('.')[0]}.*", *(full for full in found if full.endswith(f".{wanted}"))]
    match = next((form for form in forms if form in found), None)
    if match is None:
        raise ConfigError(Problem("--key", name, "unknown key", _suggest(wanted)))
    return found[match]


def is_default_active(default: Any) -> bool:  # Any: JSON
    """Whether a key that is left out does something all the same."""
    return default not in (None, False, "", [], {}) and not (isinstance(default, dict) and not any(default.values()))


def _honoured_at_the_top() -> Iterator[Entry]:
    older = _older(TRAIN, "")
    fields = top_fields()
    for section in SECTIONS:
        for key in keys().values():
            if key.loc[0] == section:
                yield _honoured(key.key, section, fields[key.key], older.get(key.key, ()))


def _honoured_below(section: str, schema: str) -> Iterator[Entry]:
    older = _older(DATASET, "datasets.") if section == "datasets" else {}
    for name, node in section_fields(schema).items():
        yield _honoured(f"{section}.{name}", section, node, older.get(name, ()))


def _honoured(name: str, section: str, node: Node, older: tuple[str, ...]) -> Entry:
    meaning = " ".join(node.get("description", "").split())
    return Entry(name, "derived", section, in_words(node), node.get("default"), meaning, older=older)


def _suggest(wanted: str) -> str:
    last_parts = {full.rpartition(".")[2]: full for full in entries()}
    close = difflib.get_close_matches(wanted.rpartition(".")[2], last_parts, n=3, cutoff=0.6)
    names = ", ".join(f"`{last_parts[name]}`" for name in close)
    return f"did you mean {names}?" if names else "`ftl schema --format markdown` lists all keys"


def _others(dialect: Dialect, prefix: str) -> Iterator[Entry]:
    older = _older(dialect, prefix)
    for name, conversion in dialect.convert.items():
        yield Entry(f"{prefix}{name}", "convert", None, "", None, conversion.reason, conversion.becomes)
    for name, aside in {**dialect.refused, **dialect.ignored}.items():
        table = dialect.table_of(name)
        assert table is not None, name
        yield Entry(f"{prefix}{name}", table, None, "", None, aside.reason, older=older.get(name, ()))


def _nested() -> Iterator[Entry]:
    """The keys below mappings. What is honoured by its own meaning is an entry already."""
    for (level, name), table in key_list().items():
        if level != "nested":
            continue
        parent, _, key = name.rpartition(".")
        top = parent.partition(".")[0]
        meaning = f"any key, for `{parent}`" if key == "*" else f"as `{parent}`"
        aside = TRAIN.refused.get(top) or TRAIN.ignored.get(top)
        conversion = TRAIN.values.get(top) or TRAIN.convert.get(top)
        if table == "convert":
            assert conversion is not None, name
            yield Entry(name, table, None, "", None, conversion.reason, conversion.becomes)
        else:
            yield Entry(name, table, None, "", None, f"{meaning}: {aside.reason}" if aside else meaning)


def _older(dialect: Dialect, prefix: str) -> dict[str, tuple[str, ...]]:
    """Key -> the keys that become it."""
    found: dict[str, list[str]] = {}
    for name, conversion in dialect.convert.items():
        for key in keys_in(conversion.becomes):
            found.setdefault(key, []).append(f"{prefix}{name}")
    return {key: tuple(names) for key, names in found.items()}


def keys_in(becomes: str) -> list[str]:
    """The keys in text such as `sample_packing: true, sequence_len`; words that are no keys may be among them."""
    flat = re.sub(r"\{.*?\}", "", becomes)
    return [part.partition(":")[0].strip() for part in flat.split(",")]
