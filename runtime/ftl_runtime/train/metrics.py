"""Losses and what an objective measures beside them, summed over micro-batches and ranks."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from ftl_runtime import ranks
from ftl_runtime.context import Device
from ftl_runtime.objectives.terms import Counts, Terms

Sums = dict[str, list[float]]
"""Name -> a sum, and over how many."""


class Metrics:
    """Means over a number of micro-batches. Sums stay on the device, so that no step waits for them."""

    def __init__(self, where: torch.device, sums: Mapping[str, list[float]] | None = None) -> None:
        """`sums` of a checkpoint are carried on."""
        self._sums = {name: torch.tensor(pair, device=where) for name, pair in (sums or {}).items()}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """[2] each: a sum, and over how many."""
        for name, pair in metrics.items():
            self._sums[name] = self._sums[name] + pair if name in self._sums else pair

    def take(self, device: Device) -> dict[str, float]:
        """The means over all ranks, each of which has seen a micro-batch; begins anew."""
        means = means_of(self._over_ranks(device))
        self._sums = {}
        return means

    def share(self, device: Device) -> Sums:
        """For a checkpoint: with one rank the exact sums; of several each goes on from an equal share."""
        return {name: [value / device.num_ranks for value in pair] for name, pair in self._over_ranks(device).items()}

    def here(self) -> Sums:
        """Of this rank alone."""
        return {name: pair.tolist() for name, pair in self._sums.items()}

    def _over_ranks(self, device: Device) -> Sums:
        if not self._sums:
            return {}
        names = sorted(self._sums)
        stacked = torch.stack([self._sums[name] for name in names])
        return dict(zip(names, ranks.sum_tensor(stacked, device).tolist(), strict=True))


class Evaluation:
    """The loss of an evaluation set, of which ranks may see different numbers of batches, or none."""

    def __init__(self, where: torch.device) -> None:
        self._terms: list[float] = []
        self._counts: list[float] = []
        self._metrics = Metrics(where)

    def add(self, terms: Terms, counts: Counts) -> None:
        self._terms = _added(self._terms, [float(term) for term in terms.sums])
        self._counts = _added(self._counts, counts)
        self._metrics.add(terms.metrics)

    def finish(self, device: Device) -> tuple[float, dict[str, float]]:
        """The loss, and the means of the metrics, over all ranks."""
        sums: list[float] = []
        counts: list[float] = []
        metrics: Sums = {}
        for of_rank in ranks.gather((self._terms, self._counts, self._metrics.here()), device):
            sums, counts = _added(sums, of_rank[0]), _added(counts, of_rank[1])
            metrics |= {name: _added(metrics.get(name, []), pair) for name, pair in of_rank[2].items()}
        return sum(total / max(count, 1) for total, count in zip(sums, counts, strict=True)), means_of(metrics)


def means_of(sums: Sums) -> dict[str, float]:
    """What nothing was counted for is left out."""
    means = {name: total / number for name, (total, number) in sums.items() if number}
    if "rewards/chosen" in means and "rewards/rejected" in means:
        means["rewards/margins"] = means["rewards/chosen"] - means["rewards/rejected"]
    return means


def _added(sums: list[float], more: Iterable[float]) -> list[float]:
    more = list(more)
    return [a + b for a, b in zip(sums or [0] * len(more), more or [0] * len(sums), strict=True)]
