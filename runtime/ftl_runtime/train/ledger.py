"""What the steps of a training have come to: told every so many of them, and at its end."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ftl.errors import TrainingError
from ftl_runtime import ranks
from ftl_runtime.context import Context
from ftl_runtime.train.gpustats import GpuStats
from ftl_runtime.train.metrics import Metrics
from ftl_runtime.train.progress import Progress, peak_memory_gib

_REMEDY = "lower learning_rate, set max_grad_norm, or look for broken rows"


class Ledger:
    """Goes on from the sums in `progress`. Its own stay on the device, so that no step waits for them."""

    def __init__(self, progress: Progress, num_steps: int, where: torch.device, ctx: Context) -> None:
        self.metrics = Metrics(where, progress.window_metrics)
        self._progress = progress
        self._num_steps = num_steps
        self._ctx = ctx
        self._gpu_stats = GpuStats(ctx.device)
        self._first_loss = torch.tensor(progress.first_loss, device=where)
        self._last_loss = torch.tensor(progress.last_loss, device=where)
        self._told_tokens, self._told_s = progress.tokens, 0.0

    @property
    def _tenth(self) -> int:
        return math.ceil(self._num_steps / 10)

    def add(self, step: int, loss: Tensor) -> None:
        """The loss of a micro-batch of that step."""
        if step <= self._tenth:
            self._first_loss = self._first_loss + loss
        if step > self._num_steps - self._tenth:
            self._last_loss = self._last_loss + loss

    def tell(self, step: int, seconds: float, facts: Mapping[str, float | None]) -> dict[str, float]:
        """Emit the event of a step, with `facts` of it; gives the means of the metrics since the last one.

        `seconds` is how long the training has gone on. All ranks must ask.
        """
        tokens = self._progress.tokens
        tokens_per_s = (tokens - self._told_tokens) / max(seconds - self._told_s, 1e-9)
        self._told_tokens, self._told_s = tokens, seconds
        metrics = self.metrics.take(self._ctx.device)
        self._ctx.emit(
            "step",
            {
                "step": step,
                "max_steps": self._num_steps,
                **facts,
                "tokens": tokens,
                "tokens_per_s": tokens_per_s,
                "memory_gib": peak_memory_gib(self._ctx.device),
                **self._gpu_stats.read(),
                **metrics,
            },
        )
        return metrics

    def keep(self) -> None:
        """Put the sums into the progress, for a checkpoint. All ranks must ask."""
        self._progress.first_loss = ranks.mean(self._first_loss, self._ctx.device)
        self._progress.last_loss = ranks.mean(self._last_loss, self._ctx.device)
        self._progress.window_metrics = self.metrics.share(self._ctx.device)

    def mean_losses(self, step: int) -> tuple[float, float]:
        """Mean loss of the first and of the last tenth of the steps; where the last one was `step`, before its time,
        instead of that of the last tenth the one told last."""
        first = ranks.mean(self._first_loss, self._ctx.device) / max(min(self._tenth, step), 1)
        if step < self._num_steps:
            return first, self._progress.logged_loss
        return first, ranks.mean(self._last_loss, self._ctx.device) / self._tenth


def check_finite(loss: float, grad_norm: float | None, step: int, told_step: int) -> None:
    """Raises TrainingError before a loss or weights that are not numbers are told or saved.

    `loss` is the sum since `told_step`; a `grad_norm` that need be no number is None.
    """
    if not math.isfinite(loss):
        where = f"step {step}" if told_step + 1 == step else f"steps {told_step + 1} to {step}"
        raise TrainingError(f"the loss is {loss} at {where}; {_REMEDY}")
    if grad_norm is not None and not math.isfinite(grad_norm):
        raise TrainingError(f"the gradient norm is {grad_norm} at step {step}; {_REMEDY}")
