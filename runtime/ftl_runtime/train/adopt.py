"""ADOPT: Adam that converges with any beta2. Source: arXiv 2411.02853, algorithm 2, decoupled decay."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Adopt(Optimizer):
    """A gradient is divided by the mean squares of the steps before it, and clipped, before it enters the mean.

    The first step only measures: no weight moves.
    """

    def __init__(
        self,
        params: Any,  # Any: as torch takes them
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.9999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:  # Any: settings of a group
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = gradient * gradient
            return
        state["step"] += 1
        beta1, beta2 = group["betas"]
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        size = state["exp_avg_sq"].sqrt().clamp_(min=group["eps"])
        bound = state["step"] ** 0.25
        state["exp_avg"].lerp_((gradient / size).clamp_(-bound, bound), 1 - beta1)
        parameter.add_(state["exp_avg"], alpha=-group["lr"])
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
