"""A sweep file: which values of which config keys are to be tried, and the combinations they make."""

import hashlib
import itertools
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftl.config.override import Setting
from ftl.errors import ConfigError, Problem
from ftl.yamlfile import YamlFile, read, show_value

MAX_COMBINATIONS = 100
_JOINT = "_"
"""The key under which values stand that belong together."""
_SLUG_LENGTH = 80


@dataclass(frozen=True)
class Combination:
    """One run of a sweep."""

    number: int
    """1, 2, ... in the order of the file, the last key changing fastest."""
    settings: tuple[Setting, ...]

    @property
    def values(self) -> dict[str, Any]:  # Any: what YAML holds
        return {setting.key: setting.value for setting in self.settings}

    @property
    def label(self) -> str:
        """`lora_r=8 learning_rate=0.0001`"""
        return " ".join(f"{key}={short(value)}" for key, value in self.values.items())

    @property
    def slug(self) -> str:
        """The label as the name of a directory; another combination has another one."""
        plain = ",".join(f"{key}={short(value)}" for key, value in self.values.items())
        slug = re.sub(r"[^A-Za-z0-9._=,+-]", "-", plain)
        if slug == plain and len(slug) <= _SLUG_LENGTH:
            return slug
        digest = hashlib.sha256(json.dumps(self.values, sort_keys=True).encode()).hexdigest()
        return f"{slug[:_SLUG_LENGTH]}-{digest[:6]}"


def read_sweep(path: Path) -> list[Combination]:
    """The combinations of the sweep file at `path`.

    Every key has a list of values, and each value is tried with each of the other keys. Values that belong together
    stand under `_`, a list of mappings. Raises ConfigError with all that is wrong with the file.
    """
    file = read(path)
    problems = [problem for key in file.data for problem in _problems(key, file)]
    if problems:
        raise ConfigError(*problems)
    _check_count(file)
    grid = [
        [Setting(key, value, file.where((key, i))) for i, value in enumerate(values)]
        for key, values in file.data.items()
        if key != _JOINT
    ]
    joint = [
        [Setting(key, value, file.where((_JOINT, i, key))) for key, value in together.items()]
        for i, together in enumerate(file.data.get(_JOINT, [{}]))
    ]
    chosen = [(*together, *single) for together, single in itertools.product(joint, itertools.product(*grid))]
    return [Combination(number, settings) for number, settings in enumerate(chosen, start=1)]


def short(value: Any) -> str:  # Any: what YAML holds
    """A value as it stands in a table: no quotes, no spaces."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "[" + ",".join(short(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{short(item)}" for key, item in value.items()) + "}"
    return show_value(value)


def _problems(key: str, file: YamlFile) -> list[Problem]:
    """What is wrong with one key of the file."""
    where, values = file.where((key,)), file.data[key]
    if not isinstance(values, list):
        example = f"{key}: [{show_value(values)}, ...]" if key != _JOINT else "_: [{lora_r: 8, lora_alpha: 16}, ...]"
        return [
            Problem(where, f"{key} = {show_value(values)}", "must be a list of values to try", f"write `{example}`")
        ]
    if not values:
        return [Problem(where, f"{key} = []", "must have at least one value")]
    problems = [
        Problem(file.where((key, i)), f"{key} = {show_value(value)}", "the same value stands above", "remove one")
        for i, value in enumerate(values)
        if _text(value) in map(_text, values[:i])
    ]
    if key != _JOINT:
        return problems
    for i, together in enumerate(values):
        if not isinstance(together, dict) or not together:
            given = f"_ = {show_value(together)}"
            problems.append(
                Problem(file.where((key, i)), given, "must be keys that change together, `{lora_r: 8, lora_alpha: 16}`")
            )
            continue
        problems += [
            Problem(file.where((key, i, twice)), twice, "stands below `_` and by itself", "remove one of them")
            for twice in together
            if twice in file.data
        ]
    return problems


def _text(value: Any) -> str:  # Any: what YAML holds
    """Tells 1 from true and from 1.0, which Python holds for equal."""
    return json.dumps(value, sort_keys=True)


def _check_count(file: YamlFile) -> None:
    counts = {key: len(values) for key, values in file.data.items()}
    total = math.prod(counts.values())
    if total > MAX_COMBINATIONS:
        product = " x ".join(f"{count} {key}" for key, count in counts.items())
        allowed = f"at most {MAX_COMBINATIONS} are tried"
        raise ConfigError(
            Problem(
                str(file.path),
                f"{product} = {total:,} combinations",
                allowed,
                "leave values out, or make two files of it",
            )
        )
