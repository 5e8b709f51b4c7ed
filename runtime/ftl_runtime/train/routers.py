"""The loss that keeps the experts of a model evenly used."""

from typing import Any

import torch
from torch import Tensor, nn


class RouterLoss:
    """What transformers computes of the routers in each forward pass that trains, times the factor of the config.

    It is there where the config says `output_router_logits`; passes without a gradient, of an evaluation or of the
    reference of a preference loss, leave it alone. Source: arXiv 2101.03961, equations 4 to 6.
    """

    def __init__(self, model: nn.Module, factor: float) -> None:
        self._factor = factor
        self._last: Tensor | None = None
        model.register_forward_hook(self._note)

    @classmethod
    def of(cls, model: nn.Module) -> "RouterLoss | None":
        """None for a model without experts, or whose config does not ask for it.

        `model` is the one that is called: peft runs the model below its own without the hooks of that.
        """
        config: Any = getattr(model, "config", None)  # Any: each architecture has its own
        config = config.get_text_config() if config is not None else None
        factor = getattr(config, "router_aux_loss_coef", None)
        return cls(model, factor) if factor and getattr(config, "output_router_logits", False) else None

    def take(self) -> Tensor | float:
        """That of the last pass; 0 where there was none since."""
        last, self._last = self._last, None
        return 0.0 if last is None else self._factor * last

    def _note(self, model: nn.Module, given: Any, output: Any) -> None:  # Any: transformers' own
        if model.training and torch.is_grad_enabled():
            self._last = getattr(output, "aux_loss", None)
