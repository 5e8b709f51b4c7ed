"""Grokfast: the slow part of the gradients, made stronger. Source: arXiv 2405.20233, algorithm 1 (EMA)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Grokfast(Optimizer):
    """Adds `lamb` times their running mean to the gradients, then lets `optimizer` step. The groups are its own."""

    def __init__(self, optimizer: Optimizer, *, alpha: float, lamb: float) -> None:
        super().__init__(optimizer.param_groups, {})  # torch keeps the very dicts it is given
        self.optimizer = optimizer
        self.state = optimizer.state
        self._alpha = alpha
        self._lamb = lamb
        self._means: dict[Tensor, Tensor] = {}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure() if closure is not None else None
        for parameter in self._parameters():
            if parameter.grad is None:
                continue
            if parameter not in self._means:
                self._means[parameter] = parameter.grad.clone()
            mean = self._means[parameter].mul_(self._alpha).add_(parameter.grad, alpha=1 - self._alpha)
            parameter.grad.add_(mean, alpha=self._lamb)
        self.optimizer.step()
        return loss

    def state_dict(self) -> dict[str, Any]:  # Any: as torch writes them
        means = {number: self._means.get(parameter) for number, parameter in enumerate(self._parameters())}
        return {"optimizer": self.optimizer.state_dict(), "means": means}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:  # Any: as torch writes them
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.param_groups = self.optimizer.param_groups
        self.state = self.optimizer.state
        means: dict[int, Tensor | None] = state_dict["means"]
        self._means = {
            parameter: mean.to(parameter.device, copy=True)
            for number, parameter in enumerate(self._parameters())
            if (mean := means[number]) is not None
        }

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]
