"""The formats by family and name: what a row becomes."""

import difflib
import re
from collections.abc import Mapping
from typing import Any

from ftl.errors import ConfigError, Problem
from ftl.formats.example import Family
from ftl.formats.format import ABSENT, INLINE, Format
from ftl.formats.preference import DPO, ORPO
from ftl.formats.prompts import GRPO
from ftl.formats.python import python_format, strategy_file
from ftl.formats.reward import REWARD
from ftl.formats.sft import SFT
from ftl.formats.stepwise import PRM
from ftl.formats.teacher import KD
from ftl.formats.unpaired import KTO

FORMATS: Mapping[Family, Mapping[str, Format]] = {
    "sft": SFT,
    "dpo": DPO,
    "orpo": ORPO,
    "kto": KTO,
    "reward": REWARD,
    "prm": PRM,
    "kd": KD,
    "grpo": GRPO,
}


def find_format(type: str | Mapping[str, Any] | None, family: Family) -> Format:
    """The format that `type` of a dataset names. Raises ConfigError with the closest names when there is none."""
    if family == "sft" and isinstance(type, str) and strategy_file(type) is not None:
        return python_format(type)
    formats = FORMATS[family]
    name = type if isinstance(type, str) else ABSENT if type is None else INLINE
    if name in formats:
        return formats[name]
    known = sorted(set(formats) - {ABSENT, INLINE})
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    remedy = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
    if re.fullmatch(r"[a-zA-Z_]\w*(\.\w+){2,}", name):  # a module of Python, which axolotl imports
        remedy = "a function of your own is named by its file: `type: ./prompts.py:render`"
    given = {ABSENT: "absent", INLINE: "a mapping"}.get(name, repr(name))
    raise ConfigError(Problem("type", given, f"is no format of {family} data", remedy))
