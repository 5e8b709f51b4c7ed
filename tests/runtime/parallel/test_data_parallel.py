"""Ranks that each hold a copy of the model train as one process does on the same batch."""

import json
import time

import pytest
from together import run_ranks, train_together

from ftl.contract import Resources

pytestmark = pytest.mark.torch

# Rank by rank one row, or two rows in one process: the same four rows a step.
TWO, ONE = {"optim__micro_batch_size": 1}, {"optim__micro_batch_size": 2}
# Sixteen packed rows: four steps an epoch, without a rest that ranks would have to fill up.
COMMON = {"output__eval_steps": 3, "optim__max_steps": 6, "data__val_set_size": 7}


@pytest.fixture(scope="module")
def alone(attempt_below, tmp_path_factory):
    attempt = attempt_below(tmp_path_factory.mktemp("alone"), **ONE, **COMMON)
    attempt.train()
    return attempt


def evaluations(attempt) -> list[float]:
    return [event["data"]["loss"] for event in attempt.events("eval")]


def same_weights(one, other) -> bool:
    name = "output/model.safetensors"
    return (one.run / name).read_bytes() == (other.run / name).read_bytes()


def test_two_ranks_give_the_losses_of_one_process(make_attempt, alone):
    parallel = {"parallel__timeout_s": 77, "parallel__bucket_mib": 3}
    parallel |= {"parallel__broadcasts_buffers": False, "parallel__finds_unused": True}
    attempt = make_attempt("two", **TWO, **COMMON, **parallel)
    seen = train_together(attempt, 2)
    assert [rank["wrapper"] for rank in seen] == ["DistributedDataParallel"] * 2
    assert [rank["world"] for rank in seen] == [2, 2]
    asked = {"timeout_s": 77, "bucket_bytes": 3 * 2**20, "buffers": False, "unused": True}
    assert {key: seen[0][key] for key in asked} == asked
    assert list(attempt.losses()) == [1, 2, 3, 4, 5, 6]
    assert list(attempt.losses().values()) == pytest.approx(list(alone.losses().values()), rel=1e-5)
    assert evaluations(attempt) == pytest.approx(evaluations(alone), rel=1e-5)
    result = json.loads((attempt.run / "result.json").read_text())
    assert (result["ranks"], result["spread"]) == (2, "a copy of the model in each of 2 processes")
    assert result["tokens"] == json.loads((alone.run / "result.json").read_text())["tokens"]


def test_ranks_resume_bit_for_bit_and_in_another_number(make_attempt, alone):
    straight, stopped, fewer = (make_attempt(name, **TWO, **COMMON) for name in ("straight", "stopped", "fewer"))
    train_together(straight, 2)
    for attempt in (stopped, fewer):
        train_together(attempt, 2, stop_at=3)
        assert attempt.events("stopped")[-1]["data"] == {"step": 3, "checkpoint": 3}
    train_together(stopped, 2)
    assert stopped.losses() == straight.losses()
    assert same_weights(stopped, straight)
    fewer.config["optim"]["micro_batch_size"] = 2
    fewer.train()
    assert [event["data"]["step"] for event in fewer.events("resumed")] == [3]
    assert list(fewer.losses().values()) == pytest.approx(list(alone.losses().values()), rel=1e-5)


def _come_late(device) -> None:
    from ftl_runtime import ranks

    ranks.join(device, timeout_s=1)
    with ranks.main_first(device):
        time.sleep(1.5 if device.is_main else 0)  # rank 0 has something to tokenise


def test_ranks_wait_for_rank_0_beyond_the_timeout_of_a_step():
    run_ranks(_come_late, 2)


def test_supervisor_starts_as_many_ranks_as_the_job_has_processes(make_attempt, alone):
    attempt = make_attempt("supervised", **TWO, **COMMON)
    assert attempt.go(resources=Resources(cpus=2, processes=2)) == 0, attempt.output
    assert json.loads((attempt.run / "result.json").read_text())["ranks"] == 2
    assert list(attempt.losses().values()) == pytest.approx(list(alone.losses().values()), rel=1e-5)
