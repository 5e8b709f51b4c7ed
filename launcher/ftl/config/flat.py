"""The flat dialect people write: every key is derived from a section, converted, refused or ignored, with the reason.

To honour a key, give a field its `Flat(...)` mark and take the key out of the tables.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from ftl.config.data import DatasetSection, InlineType
from ftl.config.dialect import Dialect, Table
from ftl.config.marker import Flat
from ftl.config.model import SpecialTokens
from ftl.config.rates import RateGroup
from ftl.config.tables import dataset
from ftl.config.tables.convert import CONVERT
from ftl.config.tables.ignored import IGNORED
from ftl.config.tables.nested import NESTED, OPEN
from ftl.config.tables.refused import REFUSED
from ftl.config.tables.values import VALUES
from ftl.config.train import TrainConfig
from ftl.section import Section
from ftl.yamlfile import annotations_at

FlagKind = Literal["switch", "value", "either"]
Level = Literal["top", "dataset", "nested"]


@dataclass(frozen=True)
class FlatKey:
    """A key of the dialect and the field it fills."""

    key: str
    loc: tuple[str, ...]
    """The field: ("adapter", "rank")."""
    annotation: Any  # Any: a type annotation
    is_bool: bool


def keys() -> dict[str, FlatKey]:
    """Every derived key, in the order of the sections. For flags, completion and docs."""
    return dict(_KEYS)


def mappings() -> dict[str, type[Section]]:
    """The derived keys of the top level whose value is a mapping with keys of its own, and the section it fills."""
    return {
        key.key: section
        for key in _KEYS.values()
        for section in annotations_at(TrainConfig, key.loc)
        if isinstance(section, type) and issubclass(section, Section)
    }


def flag_kinds() -> dict[str, FlagKind]:
    """Every key that may be given as a flag. One that will be refused or ignored may come with a value or without."""
    derived = {key.key: key.is_bool for key in _KEYS.values()}
    converted = {key: conversion.is_bool for key, conversion in CONVERT.items()}
    kinds: dict[str, FlagKind] = {
        key: "switch" if is_bool else "value" for key, is_bool in (derived | converted).items()
    }
    return kinds | dict.fromkeys((*REFUSED, *IGNORED), "either")


def key_list() -> dict[tuple[Level, str], Table]:
    """Every key by name, with its level and its table.

    A nested one is dotted: `fsdp_config.offload_params`; `optim_args.*` stands for any key that is given there.
    """
    found: dict[tuple[Level, str], Table] = {}
    dialects: dict[Level, Dialect] = {"top": TRAIN, "dataset": DATASET}
    for level, dialect in dialects.items():
        found |= {(level, name): table for name in dialect.names() if (table := dialect.table_of(name))}
    nested = {**NESTED, **dict.fromkeys(OPEN, ("*",))}
    for parent, names in nested.items():
        table = TRAIN.table_of(parent.partition(".")[0])
        assert table is not None, parent
        found |= {("nested", f"{parent}.{name}"): table for name in names}
    for parent, section in mappings().items():
        found |= {("nested", f"{parent}.{name}"): "derived" for name in section.model_fields}
    found |= {("nested", f"tokens.{name}"): "convert" for name in SpecialTokens.model_fields}
    found |= {("nested", f"lr_groups.{name}"): "derived" for name in RateGroup.model_fields}
    found |= {("nested", f"datasets.type.{name}"): "derived" for name in InlineType.model_fields}
    return found | {("nested", f"datasets.{name}.*"): "derived" for name in ("roles", "message_property_mappings")}


def counts() -> dict[Level, Counter[Table]]:
    """How many keys each table has at each level."""
    found: dict[Level, Counter[Table]] = {"top": Counter(), "dataset": Counter(), "nested": Counter()}
    for (level, _), table in key_list().items():
        found[level][table] += 1
    return found


def _derive(schema: type[Section]) -> dict[str, FlatKey]:
    found: dict[str, FlatKey] = {}
    for section in schema.model_fields:
        for kind in annotations_at(schema, (section,)):
            for name, info in kind.model_fields.items():
                mark = next((item for item in info.metadata if isinstance(item, Flat)), None)
                if mark is None:
                    continue
                if mark.key in found:
                    raise TypeError(f"flat key {mark.key!r} is claimed by {found[mark.key].loc} and {(section, name)}")
                is_bool = bool in annotations_at(kind, (name,))
                found[mark.key] = FlatKey(mark.key, (section, name), info.annotation, is_bool)
    return found


_KEYS = _derive(TrainConfig)

TRAIN = Dialect(frozenset(_KEYS), CONVERT, REFUSED, IGNORED, VALUES, NESTED)
"""The top level of a training config."""

DATASET = Dialect(
    frozenset(DatasetSection.model_fields), dataset.CONVERT, dataset.REFUSED, dataset.IGNORED, dataset.VALUES
)
"""One entry of `datasets`, `test_datasets` or `pretraining_dataset`."""
