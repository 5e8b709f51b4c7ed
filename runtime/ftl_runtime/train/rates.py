"""The learning rate of each step, as a share of the highest: pure functions, so a resumed run has the same.

Steps count from 0. What the warmup gives is as in transformers: step 0 of it trains with a rate of 0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from ftl.config.optim import OptimSection, Scheduler
from ftl.config.rates import RatesSection
from ftl_runtime.train.schedule import Schedule

_LEAST_AT_RESTART = 0.001

Factor = Callable[[int], float]
"""Step -> share of the highest rate."""


@dataclass(frozen=True)
class Plan:
    """What a schedule is made from."""

    optim: OptimSection
    rates: RatesSection
    max_steps: int
    warmup_steps: int

    def number(self, option: str, default: float) -> float:
        return float(self.rates.scheduler_options.get(option, default))

    def text(self, option: str, default: str) -> str:
        return str(self.rates.scheduler_options.get(option, default))

    def least(self) -> float:
        """The share that the options, or cosine_min_lr_ratio, end at."""
        if "min_lr" in self.rates.scheduler_options:
            return self.number("min_lr", 0.0) / self.optim.learning_rate
        return self.number("min_lr_rate", self.rates.cosine_min_ratio or 0.0)

    def warmed(self, after: Factor, power: int = 1) -> Factor:
        """Rises from 0 over the warmup, then is `after` of the steps since."""

        def factor(step: int) -> float:
            if step < self.warmup_steps:
                return float((step / self.warmup_steps) ** power)
            return after(step - self.warmup_steps)

        return factor

    def progress(self, since_warmup: int) -> float:
        """Share of the steps after the warmup that are done, 1 beyond the last."""
        return min(1.0, since_warmup / max(1, self.max_steps - self.warmup_steps))


def scheduler_of(optim: OptimSection) -> Scheduler:
    """The schedule in use: a schedule-free optimizer averages instead, and has its own warmup."""
    if optim.scheduler is not None:
        return optim.scheduler
    return "constant" if optim.optimizer.startswith("schedule_free") else "cosine"


def make_scheduler(
    optimizer: Optimizer, optim: OptimSection, rates: RatesSection, schedule: Schedule
) -> LRScheduler | ReduceLROnPlateau:
    """The scheduler to step after each optimizer step; one on a plateau takes an evaluation's loss instead."""
    if scheduler_of(optim) == "reduce_lr_on_plateau":
        options: dict[str, Any] = {"mode": "min", **rates.scheduler_options}  # Any: each option has its own type
        return ReduceLROnPlateau(optimizer, **options)
    factor = factor_of(Plan(optim, rates, schedule.max_steps, schedule.warmup_steps))
    return LambdaLR(
        optimizer, factor if rates.restart_steps is None else _restarted(factor, rates, rates.restart_steps)
    )


def factor_of(plan: Plan) -> Factor:
    """The schedule that the config names, as a function of the step."""
    return _FACTORS[scheduler_of(plan.optim)](plan)


def _restarted(factor: Factor, rates: RatesSection, every: int) -> Factor:
    """`factor`, brought down to a thousandth at each multiple of `every` steps, and up again."""
    rise, fall = max(1, rates.restart_warmup_steps), max(1, rates.restart_anneal_steps)

    def restarted(step: int) -> float:
        phase = step % every
        share = min(1.0, (every - phase) / fall)
        if step >= every:
            share = min(share, phase / rise)
        return factor(step) * (_LEAST_AT_RESTART + (1 - _LEAST_AT_RESTART) * share)

    return restarted


def _constant(plan: Plan) -> Factor:
    return lambda step: 1.0


def _constant_with_warmup(plan: Plan) -> Factor:
    return plan.warmed(lambda since: 1.0)


def _linear(plan: Plan) -> Factor:
    return plan.warmed(lambda since: 1 - plan.progress(since))


def _cosine(plan: Plan) -> Factor:
    """Source of the constant end: arXiv 2308.04014, which decays to a tenth over 0.8 of the steps."""
    num_cycles, least = plan.number("num_cycles", 0.5), plan.least()
    power = 2 if plan.rates.quadratic_warmup else 1
    end = plan.max_steps
    if plan.rates.cosine_constant_ratio is not None:
        end = max(plan.warmup_steps, int(plan.max_steps * plan.rates.cosine_constant_ratio))

    def after(since: int) -> float:
        progress = min(1.0, since / max(1, end - plan.warmup_steps))
        return least + (1 - least) * _wave(num_cycles * progress)

    return plan.warmed(after, power)


def _cosine_from_the_first_step(plan: Plan) -> Factor:
    """Cosine whose first step trains already and whose last one has the lowest rate."""
    num_cycles, least = plan.number("num_cycles", 0.5), plan.least()
    options = plan.rates.scheduler_options
    start: float | None = None
    if "warmup_lr" in options:
        start = plan.number("warmup_lr", 0.0) / plan.optim.learning_rate
    elif "warmup_lr_rate" in options:
        start = plan.number("warmup_lr_rate", 0.0)

    def factor(step: int) -> float:
        if step < plan.warmup_steps:
            if start is None:
                return (step + 1) / plan.warmup_steps
            return start + (1 - start) * step / max(1, plan.warmup_steps - 1)
        return least + (1 - least) * _wave(num_cycles * plan.progress(step - plan.warmup_steps + 1))

    return factor


def _cosine_with_restarts(plan: Plan) -> Factor:
    num_cycles = plan.number("num_cycles", 1)

    def after(since: int) -> float:
        progress = plan.progress(since)
        return 0.0 if progress >= 1 else _wave(0.5 * (num_cycles * progress % 1))

    return plan.warmed(after)


def _polynomial(plan: Plan) -> Factor:
    end = plan.number("lr_end", 1e-7) / plan.optim.learning_rate
    power = plan.number("power", 1.0)
    return plan.warmed(lambda since: end + (1 - end) * (1 - plan.progress(since)) ** power)


def _inverse_sqrt(plan: Plan) -> Factor:
    timescale = plan.number("timescale", plan.warmup_steps or 10_000)
    return plan.warmed(lambda since: 1 / math.sqrt((since + timescale) / timescale))


def _warmup_stable_decay(plan: Plan) -> Factor:
    """Rises, stays, and goes down over the last tenth of the steps unless told otherwise. Source: arXiv 2404.06395."""
    least = plan.number("min_lr_ratio", 0.0)
    num_cycles = plan.number("num_cycles", 0.5)
    num_decay = int(plan.number("num_decay_steps", math.ceil(plan.max_steps / 10)))
    num_stable = int(plan.number("num_stable_steps", max(0, plan.max_steps - plan.warmup_steps - num_decay)))
    rises: dict[str, Callable[[float], float]] = {
        "linear": lambda share: share,
        "cosine": lambda share: 1 - _wave(0.5 * share),
        "1-sqrt": lambda share: 1 - math.sqrt(1 - share),
    }
    falls: dict[str, Callable[[float], float]] = {
        "linear": lambda share: 1 - share,
        "cosine": lambda share: _wave(num_cycles * share),
        "1-sqrt": lambda share: 1 - math.sqrt(share),
    }
    rise, fall = rises[plan.text("warmup_type", "linear")], falls[plan.text("decay_type", "cosine")]

    def factor(step: int) -> float:
        if step < plan.warmup_steps:
            return least + (1 - least) * rise(step / plan.warmup_steps)
        decayed = step - plan.warmup_steps - num_stable
        if decayed < 0:
            return 1.0
        return least + (1 - least) * fall(decayed / num_decay) if decayed < num_decay else least

    return factor


def _one_cycle(plan: Plan) -> Factor:
    """Up from 1 / div_factor, then down to 1 / (div_factor * final_div_factor). Source: arXiv 1708.07120.

    As torch's OneCycleLR, whose numbering of steps this keeps; betas stay as they are.
    """
    start = 1 / plan.number("div_factor", 25)
    end = start / plan.number("final_div_factor", 1e4)
    last = plan.max_steps - 1
    peak = plan.number("pct_start", plan.warmup_steps / plan.max_steps) * plan.max_steps - 1
    corners = [(peak, start, 1.0), (last, 1.0, end)]
    if plan.rates.scheduler_options.get("three_phase"):
        corners = [(peak, start, 1.0), (2 * peak, 1.0, start), (last, start, end)]
    is_linear = plan.text("anneal_strategy", "cos") == "linear"

    def factor(step: int) -> float:
        begun = 0.0
        for stop, first, then in corners:
            if step <= stop and stop > begun:
                share = (step - begun) / (stop - begun)
                return first + (then - first) * (share if is_linear else 1 - _wave(0.5 * share))
            begun = max(begun, stop)
        return end if step else 1.0

    return factor


def _rex(plan: Plan) -> Factor:
    """Source: arXiv 2107.04197, (1 - x) / (1/2 + 1/2 (1 - x)) with x from 0 to 1."""
    least = plan.least()

    def after(since: int) -> float:
        left = 1 - plan.progress(since)
        return least + (1 - least) * left / (0.5 + 0.5 * left)

    return plan.warmed(after)


def _log_sweep(plan: Plan) -> Factor:
    """Rates from the lowest to the highest, evenly in their logarithm: over a warmup that was given, else all steps."""
    lowest, highest = plan.rates.sweep_min, plan.rates.sweep_max
    is_shorter = plan.optim.warmup_steps is not None or plan.optim.warmup_ratio is not None
    num_steps = plan.warmup_steps if is_shorter else plan.max_steps

    def factor(step: int) -> float:
        share = min(1.0, step / max(1, num_steps - 1))
        return lowest * math.exp(math.log(highest / lowest) * share) / plan.optim.learning_rate

    return factor


def _wave(turns: float) -> float:
    """1 at 0 turns, 0 at half a turn, 1 at a whole one."""
    return 0.5 * (1 + math.cos(2 * math.pi * turns))


_FACTORS: dict[Scheduler, Callable[[Plan], Factor]] = {
    "cosine": _cosine,
    "cosine_with_min_lr": _cosine,
    "cosine_warmup_with_min_lr": _cosine_from_the_first_step,
    "cosine_with_restarts": _cosine_with_restarts,
    "linear": _linear,
    "constant": _constant,
    "constant_with_warmup": _constant_with_warmup,
    "polynomial": _polynomial,
    "inverse_sqrt": _inverse_sqrt,
    "warmup_stable_decay": _warmup_stable_decay,
    "one_cycle": _one_cycle,
    "rex": _rex,
    "log_sweep": _log_sweep,
}
