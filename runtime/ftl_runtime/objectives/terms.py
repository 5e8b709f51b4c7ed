"""What an objective makes of a micro-batch, and what it may ask of the model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

IGNORED = -100
"""The label of a token that is not trained: prompt, padding, first of a document."""

Batch = dict[str, Any]  # Any: tensors, and ints on the host
Counts = tuple[int, ...]


@dataclass(frozen=True)
class Terms:
    """The loss of an accumulated batch is the sum of its terms, each divided by its own count in all micro-batches."""

    sums: tuple[Tensor, ...]
    """Scalars, summed over the micro-batch."""
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    """Name -> [2]: a sum, and over how many; without a gradient, the same names in every micro-batch."""


class Scorer(Protocol):
    """The model in training, and the one it is compared with."""

    def packed_logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """[B, T, V] and their labels, [B, T]; B may be 1, and the rows laid end to end."""
        ...

    def cross_entropy(self, batch: Batch) -> Tensor:
        """Of packed texts: of each trained token given the tokens before it, summed, in nats, in fp32."""
        ...

    def chosen_logits(self, batch: Batch, ids_MK: Tensor, temperatures: tuple[float, ...]) -> tuple[Tensor, Tensor]:
        """Of packed texts, in the place of each of the M trained tokens, in fp32: the logits of the tokens `ids_MK`;
        and [M, S], the log of the sum of exp(logits / t) over the vocabulary, for each of S temperatures."""
        ...

    def class_logits(self, batch: Batch) -> Tensor:
        """[B, C] or [B, T, C], of a model with a head for C classes."""
        ...

    def logprobs(self, batch: Batch, *, with_squares: bool = False, temperature: float = 1.0) -> "Logprobs":
        """Of the labels, of logits over that temperature; `with_squares` gives log_sum_squares_BK, too."""
        ...

    def measure(self, batch: Batch) -> Tensor:
        """[B]: log-probability of the labels of each row, summed, by the model as it is; no gradient, no dropout."""
        ...

    def reference_logprobs(self, batch: Batch, *, temperature: float = 1.0) -> Tensor:
        """[B, K], as `logprobs` has them, by the frozen reference; no gradient."""
        ...

    def reference(self, batch: Batch) -> Tensor:
        """[B]: log-probability of the labels of each row, summed, by the frozen reference; no gradient."""
        ...


@dataclass(frozen=True)
class Logprobs:
    """Of B rows. K is T - 1, or less where the first tokens of all rows have no label."""

    values_BK: Tensor
    """fp32, in nats; 0 where there is no label."""
    is_label_BK: Tensor
    log_sum_squares_BK: Tensor | None = None
    """Of all tokens' probabilities, where they were asked for."""

    @property
    def sums(self) -> Tensor:
        return self.values_BK.sum(1)

    @property
    def lengths(self) -> Tensor:
        """Labels of each row, at least 1."""
        return self.is_label_BK.sum(1).clamp(min=1)


def mean_of(values: Tensor) -> Tensor:
    """[2], for Terms.metrics: the sum of the values, and how many they are."""
    values = values.detach().float()
    return torch.stack([values.sum(), torch.tensor(float(values.numel()), device=values.device)])
