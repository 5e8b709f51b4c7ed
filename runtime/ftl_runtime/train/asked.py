"""The objective of a training, asked about its batches."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ftl.config.objective import ObjectiveSection
from ftl_runtime import ranks
from ftl_runtime.context import Device
from ftl_runtime.objectives import Objective
from ftl_runtime.objectives.terms import Batch, Counts, Terms
from ftl_runtime.parallel.sequence import Split
from ftl_runtime.train.scoring import Inputs, ModelScorer, Reference


@dataclass(frozen=True)
class Asked:
    objective: Objective
    settings: ObjectiveSection
    inputs: Inputs
    reference: Reference | None
    split: Split | None
    device: Device

    def terms(self, model: nn.Module, batch: Batch) -> Terms:
        """Of the loss of a micro-batch; where ranks share rows, this one's part of them."""
        scorer = ModelScorer(model, self.inputs, self.reference)
        return self.objective.terms(scorer, batch if self.split is None else self.split.share(batch), self.settings)

    @torch.no_grad()
    def estimate(self, model: nn.Module, batches: Iterable[Batch], where: torch.device) -> Tensor | None:
        """What the objective asks to know beforehand of all of these, over all ranks; they are on the device `where`.

        `model` is not wrapped: ranks may have other numbers of batches.
        """
        if self.objective.estimate is None:
            return None
        scorer = ModelScorer(model, self.inputs, self.reference)
        total = torch.zeros(2, device=where)
        for batch in batches:
            total = total + self.objective.estimate(scorer, batch)
        return ranks.sum_tensor(total, self.device)

    def count_once(self, batch: Batch) -> Counts:
        """What each term is divided by, so that it adds up over ranks: of those that share rows, one counts them."""
        counts = self.objective.count(batch, self.settings)
        return counts if self.split is None else self.split.once(counts)

    def count(self, batches: Iterable[Batch]) -> Counts:
        """The same of several, summed over all ranks."""
        counts = [self.objective.count(batch, self.settings) for batch in batches]
        return tuple(ranks.sum_over_copies(sum(term), self.device) for term in zip(*counts, strict=True))
