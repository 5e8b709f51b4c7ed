"""The formats of preference data, by family and name."""

from ftl.formats.format import Format

DPO: dict[str, Format] = {}
ORPO: dict[str, Format] = {}
KTO: dict[str, Format] = {}
REWARD: dict[str, Format] = {}
