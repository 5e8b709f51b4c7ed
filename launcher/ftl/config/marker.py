"""Flat: the mark that ties a field to its key in the flat dialect people write."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Flat:
    """`rank: Annotated[int, Flat("lora_r")]`: the YAML key `lora_r` fills this field."""

    key: str
