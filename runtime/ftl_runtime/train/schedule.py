"""Which step does what: log, evaluate, save. Pure functions of the step, so a resumed run does the same."""

import math
from dataclasses import dataclass

from ftl.config.optim import OptimSection
from ftl.config.output import OutputSection

_WARMUP_SHARE = 0.03
_WARMUP_MOST = 100


@dataclass(frozen=True)
class Rhythm:
    """Due every `every` steps, or `per_epoch` times an epoch at even distances; and at the last step.

    Never when neither is set.
    """

    every: int | None = None
    per_epoch: int | None = None

    def is_due(self, step: int, steps_per_epoch: int, max_steps: int) -> bool:
        if self.every is None and self.per_epoch is None:
            return False
        if step >= max_steps:
            return True
        if self.every is not None:
            return step % self.every == 0
        assert self.per_epoch is not None
        return step * self.per_epoch // steps_per_epoch > (step - 1) * self.per_epoch // steps_per_epoch


@dataclass(frozen=True)
class Schedule:
    """Counted in optimizer steps, from 1 on."""

    max_steps: int
    steps_per_epoch: int
    warmup_steps: int
    log_every: int
    saving: Rhythm
    evaluating: Rhythm

    def logs_at(self, step: int) -> bool:
        return step % self.log_every == 0 or step >= self.max_steps

    def saves_at(self, step: int) -> bool:
        return step > 0 and self.saving.is_due(step, self.steps_per_epoch, self.max_steps)

    def evaluates_at(self, step: int) -> bool:
        """True at step 0 too, so that what training gained can be told."""
        return self.evaluating != Rhythm() and (
            step == 0 or self.evaluating.is_due(step, self.steps_per_epoch, self.max_steps)
        )


def plan_schedule(optim: OptimSection, output: OutputSection, *, num_micro_batches: int, has_eval: bool) -> Schedule:
    """`num_micro_batches` is what one rank takes in an epoch; the last step of an epoch may have fewer of them."""
    steps_per_epoch = max(1, math.ceil(num_micro_batches / optim.gradient_accumulation_steps))
    max_steps = optim.max_steps or math.ceil(optim.num_epochs * steps_per_epoch)
    return Schedule(
        max_steps=max_steps,
        steps_per_epoch=steps_per_epoch,
        warmup_steps=_warmup(optim, max_steps),
        log_every=output.logging_steps,
        saving=_rhythm(output.save_strategy, output.save_steps, output.saves_per_epoch, max_steps),
        evaluating=_rhythm(output.eval_strategy, output.eval_steps, output.evals_per_epoch, max_steps)
        if has_eval
        else Rhythm(),
    )


def _warmup(optim: OptimSection, max_steps: int) -> int:
    if optim.warmup_steps is not None:
        return optim.warmup_steps
    if optim.warmup_ratio is not None:
        return math.ceil(max_steps * optim.warmup_ratio)
    return min(_WARMUP_MOST, math.ceil(max_steps * _WARMUP_SHARE))


def _rhythm(strategy: str | None, every: float | None, per_epoch: int | None, max_steps: int) -> Rhythm:
    if strategy in ("no", "best"):
        return Rhythm()
    if per_epoch is not None:
        return Rhythm(per_epoch=per_epoch)
    if every is not None and strategy != "epoch":
        return Rhythm(every=math.ceil(max_steps * every) if every < 1 else int(every))
    return Rhythm(per_epoch=1)
