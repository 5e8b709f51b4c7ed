"""Prompts that the model answers in training, each as often as its answers are compared."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ftl.config.data import DatasetSection
from ftl.contract import DatasetUse
from ftl.errors import ConfigError, Problem
from ftl.formats.example import Example, RowError
from ftl.formats.jsontext import parse_json
from ftl.formats.prompts import columns_of, prompt_column
from ftl.sources import Source
from ftl.tokens import Recipe, TokenizerView, encode
from ftl_runtime.data.dataset import identity_of

_SHOWN = 5


@dataclass(frozen=True)
class Prompt:
    ids: tuple[int, ...]
    given: Any  # Any: a text, or messages as the user's JSON has them
    """As reward functions get it."""
    columns: dict[str, Any]  # Any: the user's JSON
    """The other columns of the row."""


@dataclass(frozen=True)
class PromptRows:
    """Row n is prompt n // num_copies."""

    prompts: tuple[Prompt, ...]
    num_copies: int

    def __len__(self) -> int:
        return len(self.prompts) * self.num_copies

    def __getitem__(self, row: int) -> Prompt:
        return self.prompts[row // self.num_copies]

    def costs(self, rows: Sequence[int]) -> list[int]:
        """All alike: RankShare then gives every so-manieth row of a batch to a rank, as PromptOrder lays them."""
        return [1] * len(rows)


class PromptOrder:
    """Prompts in an order that depends on seed and epoch alone, all copies of one in one step of one rank.

    Prompts that do not fill a step at the end of an epoch are left out of it.
    """

    def __init__(self, rows: PromptRows, *, per_step: int, num_ranks: int, seed: int, is_shuffled: bool) -> None:
        """`per_step` rows are what one rank takes in a step, a multiple of the copies. Raises ConfigError where there
        are too few prompts for one step."""
        self._rows = rows
        self._per_step = per_step
        self._num_ranks = num_ranks
        self._seed = seed if is_shuffled else None
        self._epoch = 0
        if not len(self):
            needed = per_step * num_ranks // rows.num_copies
            given = f"{len(rows.prompts)} prompts, and a step takes {needed}"
            raise ConfigError(Problem("datasets", given, remedy="lower gradient_accumulation_steps"))

    def set_epoch(self, epoch: int) -> None:
        """As of BatchOrder."""
        self._epoch = epoch

    def __len__(self) -> int:
        whole = self._per_step * self._num_ranks
        return len(self._rows) // whole * whole

    def __iter__(self) -> Iterator[int]:
        copies, ranks = self._rows.num_copies, self._num_ranks
        order = np.arange(len(self._rows.prompts))
        if self._seed is not None:
            order = np.random.default_rng((self._seed, self._epoch)).permutation(order)
        groups = self._per_step // copies
        for start in range(0, len(self) // copies, groups * ranks):
            for place in range(self._per_step):
                for rank in range(ranks):
                    prompt = order[start + rank * groups + place // copies]
                    yield int(prompt) * copies + place % copies


@dataclass(frozen=True)
class PromptCollator:
    def __call__(self, rows: Sequence[Prompt]) -> dict[str, Any]:  # Any: no tensors yet
        return {"prompts": list(rows)}


def read_prompts(
    key: str, dataset: DatasetSection, source: Source, recipe: Recipe, view: TokenizerView, sequence_len: int
) -> tuple[list[Prompt], DatasetUse]:
    """The prompts of a dataset that have fewer than `sequence_len` tokens. Raises ConfigError with the broken rows."""
    column = prompt_column(dataset.type if isinstance(dataset.type, str) else None, recipe.options)
    prompts: list[Prompt] = []
    problems: list[Problem] = []
    num_rows = num_long = 0
    for row in source.scan():
        num_rows += 1
        if isinstance(row, Problem):
            problems.append(row)
            continue
        try:
            sample = recipe.sample(row.data)
        except RowError as e:
            problems.append(Problem(row.where, str(e)))
            continue
        assert isinstance(sample, Example), "what formats of prompts give"
        ids = encode([sample], view)[0].ids
        given = row.data[column]
        if recipe.format.needs_template and isinstance(given, str):
            given = parse_json(given, column, list, "a list of messages")
        if len(ids) < sequence_len:
            prompts.append(Prompt(tuple(ids), given, columns_of(row.data, column)))
        num_long += len(ids) >= sequence_len
    if problems:
        more = [f"{key}: {len(problems) - _SHOWN} more rows are broken"] if len(problems) > _SHOWN else []
        raise ConfigError(*problems[:_SHOWN], *more)
    use = DatasetUse(
        key=key,
        label=source.label,
        revision=source.revision,
        identity=identity_of(source),
        rows=num_rows,
        samples=len(prompts),
        tokens=sum(len(prompt.ids) for prompt in prompts),
        too_long=num_long,
    )
    return prompts, use
