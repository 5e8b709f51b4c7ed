"""The rate of each step, against formulas written out by hand and against torch's own one-cycle schedule."""

import math
from math import cos, pi, sqrt

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from ftl.config.optim import OptimSection  # noqa: E402
from ftl.config.rates import RatesSection  # noqa: E402
from ftl_runtime.train.rates import Plan, factor_of, make_scheduler  # noqa: E402
from ftl_runtime.train.schedule import Rhythm, Schedule  # noqa: E402

RATE = 0.01
STEPS, WARMUP = 20, 4


def trace(name, *, steps=STEPS, warmup=WARMUP, optim=(), **rates):
    """The rates of all steps."""
    section = OptimSection.model_validate({"learning_rate": RATE, "scheduler": name, **dict(optim)})
    factor = factor_of(Plan(section, RatesSection.model_validate(rates), steps, warmup))
    return [RATE * factor(step) for step in range(steps)]


def after(step):
    """Share of the steps after the warmup."""
    return (step - WARMUP) / (STEPS - WARMUP)


def rising(formula, *, power=1):
    """The usual warmup, then `formula` of the step."""
    return lambda s: (s / WARMUP) ** power if s < WARMUP else formula(s)


def half_wave(share):
    return (1 + cos(pi * share)) / 2


OPTIONS = "scheduler_options"
FORMULAS = [
    ("constant", {}, lambda s: 1),
    ("constant_with_warmup", {}, rising(lambda s: 1)),
    ("linear", {}, rising(lambda s: 1 - after(s))),
    ("cosine", {}, rising(lambda s: half_wave(after(s)))),
    ("cosine", {OPTIONS: {"num_cycles": 1.5}}, rising(lambda s: half_wave(3 * after(s)))),
    ("cosine", {"cosine_min_ratio": 0.1}, rising(lambda s: 0.1 + 0.9 * half_wave(after(s)))),
    (
        "cosine",  # until step 0.5 * 20, which is 6 steps after the warmup
        {"cosine_min_ratio": 0.1, "cosine_constant_ratio": 0.5},
        rising(lambda s: 0.1 + 0.9 * half_wave((s - 4) / 6) if s < 10 else 0.1),
    ),
    ("cosine", {"quadratic_warmup": True}, rising(lambda s: half_wave(after(s)), power=2)),
    ("cosine_with_min_lr", {OPTIONS: {"min_lr": 0.002}}, rising(lambda s: 0.2 + 0.8 * half_wave(after(s)))),
    ("cosine_with_min_lr", {OPTIONS: {"min_lr_rate": 0.3}}, rising(lambda s: 0.3 + 0.7 * half_wave(after(s)))),
    (
        "cosine_warmup_with_min_lr",
        {OPTIONS: {"min_lr_rate": 0.2}},
        lambda s: (s + 1) / 4 if s < 4 else 0.2 + 0.8 * half_wave((s - 3) / 16),
    ),
    (
        "cosine_warmup_with_min_lr",
        {OPTIONS: {"warmup_lr": 0.001}},
        lambda s: 0.1 + 0.9 * s / 3 if s < 4 else half_wave((s - 3) / 16),
    ),
    ("cosine_with_restarts", {OPTIONS: {"num_cycles": 2}}, rising(lambda s: half_wave((2 * after(s)) % 1))),
    ("polynomial", {}, rising(lambda s: 1e-5 + (1 - 1e-5) * (1 - after(s)))),
    ("polynomial", {OPTIONS: {"lr_end": 0.001, "power": 2}}, rising(lambda s: 0.1 + 0.9 * (1 - after(s)) ** 2)),
    ("inverse_sqrt", {}, rising(lambda s: 1 / sqrt(s / 4))),
    ("inverse_sqrt", {OPTIONS: {"timescale": 9}}, rising(lambda s: 1 / sqrt((s - 4 + 9) / 9))),
    ("rex", {}, rising(lambda s: (1 - after(s)) / (0.5 + 0.5 * (1 - after(s))))),
    ("rex", {"cosine_min_ratio": 0.1}, rising(lambda s: 0.1 + 0.9 * (1 - after(s)) / (0.5 + 0.5 * (1 - after(s))))),
    (
        "warmup_stable_decay",  # 4 up, 14 level, the last tenth down
        {},
        rising(lambda s: 1 if s < 18 else half_wave((s - 18) / 2)),
    ),
    (
        "warmup_stable_decay",
        {OPTIONS: {"num_decay_steps": 8, "decay_type": "1-sqrt", "min_lr_ratio": 0.1, "warmup_type": "cosine"}},
        lambda s: (
            0.1 + 0.9 * (1 - half_wave(s / 4)) if s < 4 else 1 if s < 12 else 0.1 + 0.9 * (1 - sqrt((s - 12) / 8))
        ),
    ),
    (
        "warmup_stable_decay",
        {OPTIONS: {"num_stable_steps": 2, "num_decay_steps": 10, "decay_type": "linear", "min_lr_ratio": 0.2}},
        lambda s: 0.2 + 0.8 * s / 4 if s < 4 else 1 if s < 6 else 0.2 + 0.8 * (1 - (s - 6) / 10) if s < 16 else 0.2,
    ),
]


@pytest.mark.parametrize(
    ("name", "rates", "formula"), FORMULAS, ids=lambda value: "" if callable(value) else str(value)[:60]
)
def test_rates_are_those_of_the_formula(name, rates, formula):
    assert trace(name, **rates) == pytest.approx([RATE * formula(step) for step in range(STEPS)], rel=1e-12, abs=1e-15)


def test_sweep_multiplies_the_rate_by_the_same_number_each_step():
    rates = trace("log_sweep", sweep_min=1e-6, sweep_max=1e-2, steps=5)
    assert rates == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3, 1e-2], rel=1e-12)


def test_sweep_over_a_given_warmup_stays_at_the_highest():
    rates = trace("log_sweep", sweep_min=1e-4, sweep_max=1e-2, steps=5, warmup=3, optim={"warmup_steps": 3})
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-2, 1e-2], rel=1e-12)


@pytest.mark.parametrize(
    "options",
    [{}, {"div_factor": 10, "final_div_factor": 100}, {"anneal_strategy": "linear"}, {"three_phase": True}],
    ids=str,
)
def test_one_cycle_is_that_of_torch(options):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=RATE)
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=RATE, total_steps=STEPS, pct_start=WARMUP / STEPS, cycle_momentum=False, **options
    )
    expected = []
    for _ in range(STEPS):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(expected) < STEPS:
            reference.step()
    assert trace("one_cycle", scheduler_options=options) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["cosine", "linear", "polynomial", "one_cycle", "rex", "inverse_sqrt", "log_sweep"])
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (2, 1), (3, 0), (3, 5)], ids=str)
def test_short_trainings_have_rates_too(name, steps, warmup):
    rates = trace(name, steps=steps, warmup=warmup)
    assert len(rates) == steps and all(math.isfinite(rate) and rate >= 0 for rate in rates)


def schedule_of(steps):
    return Schedule(steps, steps, 0, 1, Rhythm(), Rhythm())


def scheduler(optim, rates=()):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (RATE, 8 * RATE)]
    optimizer = torch.optim.SGD(groups)
    section = OptimSection.model_validate({"learning_rate": RATE, **optim})
    return optimizer, make_scheduler(optimizer, section, RatesSection.model_validate(dict(rates)), schedule_of(4))


def test_groups_keep_their_ratio_to_each_other():
    optimizer, steps = scheduler({"scheduler": "linear"})
    seen = []
    for _ in range(4):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        steps.step()
    assert seen == [pytest.approx([RATE * share, 8 * RATE * share]) for share in (1, 0.75, 0.5, 0.25)]


def test_plateau_lowers_the_rate_when_losses_stop_falling():
    options = {"scheduler_options": {"factor": 0.5, "patience": 1, "threshold": 0.0}}
    optimizer, steps = scheduler({"scheduler": "reduce_lr_on_plateau"}, options)
    seen = []
    for loss in (3.0, 2.0, 2.0, 2.0, 2.0, 2.0):  # two evaluations without a gain are one too many
        steps.step(loss)
        seen.append(optimizer.param_groups[0]["lr"] / RATE)
    assert seen == [1, 1, 1, 0.5, 0.5, 0.25]


def test_schedule_free_optimizers_have_a_constant_rate_unless_told():
    section = OptimSection(learning_rate=RATE, optimizer="schedule_free_adamw")
    assert [factor_of(Plan(section, RatesSection(), STEPS, WARMUP))(step) for step in (0, 3, 19)] == [1, 1, 1]
