import pytest

from ftl.config.optim import OptimSection
from ftl.config.output import OutputSection
from ftl_runtime.train.schedule import plan_schedule


def plan(num_micro_batches=10, *, has_eval=True, output=None, **optim):
    section = OptimSection.model_validate({"learning_rate": 1e-3, **optim})
    out = OutputSection.model_validate(output or {})
    return plan_schedule(section, out, num_micro_batches=num_micro_batches, has_eval=has_eval)


def saves(schedule):
    return [step for step in range(schedule.max_steps + 1) if schedule.saves_at(step)]


def evaluations(schedule):
    return [step for step in range(schedule.max_steps + 1) if schedule.evaluates_at(step)]


def test_last_step_of_an_epoch_may_have_fewer_micro_batches():
    schedule = plan(10, gradient_accumulation_steps=4, num_epochs=2)
    assert (schedule.steps_per_epoch, schedule.max_steps) == (3, 6)


def test_max_steps_wins_over_epochs():
    assert plan(10, max_steps=7, num_epochs=3).max_steps == 7


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [10, 20]),
        ({"save_steps": 6}, [6, 12, 18, 20]),
        ({"save_steps": 0.25}, [5, 10, 15, 20]),
        ({"saves_per_epoch": 3}, [4, 7, 10, 14, 17, 20]),
        ({"save_strategy": "no"}, []),
        ({"save_strategy": "epoch"}, [10, 20]),
    ],
    ids=["each epoch", "steps", "share", "per epoch", "no", "epoch"],
)
def test_saving(keys, expected):
    assert saves(plan(10, num_epochs=2, output=keys)) == expected


def test_evaluation_is_due_before_the_first_step_and_after_the_last():
    assert evaluations(plan(10, num_epochs=2, output={"eval_steps": 8})) == [0, 8, 16, 20]


def test_nothing_is_evaluated_without_evaluation_rows_or_when_switched_off():
    assert evaluations(plan(has_eval=False)) == []
    assert evaluations(plan(output={"eval_strategy": "no"})) == []


@pytest.mark.parametrize(
    ("keys", "expected"),
    [({}, 3), ({"warmup_steps": 0}, 0), ({"warmup_ratio": 0.1}, 10), ({"max_steps": 10_000}, 100)],
    ids=["3 %", "none", "ratio", "at most 100"],
)
def test_warmup(keys, expected):
    assert plan(100, **keys).warmup_steps == expected
