"""What can be minimised: one row an objective, one file a loss."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ftl_runtime.objectives.sft import sft_loss


@dataclass(frozen=True)
class Objective:
    loss: Callable[[Tensor, Tensor, int], Tensor]
    """(logits [B, T, V], labels [B, T], trained tokens of the accumulated batch) -> scalar."""


OBJECTIVES: dict[str, Objective] = {"sft": Objective(loss=sft_loss)}
