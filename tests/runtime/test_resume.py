"""Killed anywhere and started again, a training gives the losses and weights of one that ran through, bit for bit."""

import hashlib
import os
import random
import signal
import time

import pytest

pytestmark = pytest.mark.torch

LORA = {"kind": "lora", "rank": 4, "alpha": 8, "dropout": 0.1}
NUM_KILLS = int(os.environ.get("FTL_TEST_KILLS", "2"))
"""Of the trainer, in each kill test; raise it for a long run by hand."""


def weights_of(attempt, name="model.safetensors") -> str:
    return hashlib.sha256((attempt.run / "output" / name).read_bytes()).hexdigest()


def kill_and_resume(attempt, rng: random.Random) -> None:
    """Kill the trainer at random moments of its training, NUM_KILLS times or until it is done first."""
    for _ in range(NUM_KILLS):
        process = attempt.start({"event": "step", "sleep": 0.1})
        attempt.wait_for_attempt_to_train(process)
        time.sleep(rng.random() * 0.4)
        attempt.kill_trainers()
        if attempt.finish(process) == 0:
            return
        assert attempt.exit_record()["cause"] == "killed"
    assert attempt.go() == 0, attempt.output


def test_killed_full_run_with_packing_equals_straight_run(make_attempt):
    straight, killed = (make_attempt(name, output__logging_steps=3) for name in ("straight", "killed"))
    assert straight.go() == 0, straight.output
    kill_and_resume(killed, random.Random(1))
    assert list(straight.losses()) == [3, 6, 9, 12]
    assert killed.losses() == straight.losses()
    assert weights_of(killed) == weights_of(straight)


def test_killed_lora_run_with_dropout_equals_straight_run(make_attempt, weights):
    config = {"model": weights, "adapter": LORA, "data__sample_packing": False, "output__save_steps": 3}
    straight, killed = (make_attempt(name, **config) for name in ("straight", "killed"))
    assert straight.go() == 0, straight.output
    kill_and_resume(killed, random.Random(2))
    assert killed.losses() == straight.losses()
    assert weights_of(killed, "adapter_model.safetensors") == weights_of(straight, "adapter_model.safetensors")


def test_killed_stream_goes_on_at_the_exact_row(make_attempt):
    """Two sources by weight, small blocks, and passes that end amid the training."""
    texts = {"path": "bundle:texts.jsonl", "type": "pretrain"}
    config = {
        "data__datasets": [],
        "data__val_set_size": 0,
        "data__pretraining_dataset": [{**texts, "weight": 2}, texts],
        "data__pretraining_sample_concatenation": True,
        "data__pretrain_multipack_buffer_size": 13,
        "optim__max_steps": 14,
        "output__save_steps": 3,
    }
    straight, killed = (make_attempt(name, **config) for name in ("straight", "killed"))
    assert straight.go() == 0, straight.output
    kill_and_resume(killed, random.Random(3))
    assert list(killed.losses()) == list(range(1, 15))
    assert killed.losses() == straight.losses()
    assert weights_of(killed) == weights_of(straight)
    assert [use["key"] for use in killed.events("result")[0]["data"]["datasets"]] == [
        "pretraining_dataset.0",
        "pretraining_dataset.1",
    ]


def test_stops_inside_and_between_windows_and_epochs_change_nothing(make_attempt):
    """Four steps an epoch, two logged together, dropout on: stopped after steps 3, 4, 5 and 9, resumed each time."""
    config = {"output__logging_steps": 2, "output__save_strategy": "no", "output__eval_steps": 1}
    straight, stopped = (make_attempt(name, **config) for name in ("straight", "stopped"))
    assert straight.go() == 0, straight.output
    for step in (3, 4, 5, 9):
        assert stopped.go({"event": "eval", "step": step, "signal": signal.SIGTERM}) == 75
        assert stopped.events("stopped")[-1]["data"] == {"step": step, "checkpoint": step}
    assert stopped.go() == 0, stopped.output
    assert [event["data"]["step"] for event in stopped.events("resumed")] == [3, 4, 5, 9]
    assert stopped.losses() == straight.losses()
    assert weights_of(stopped) == weights_of(straight)


def test_damaged_newest_checkpoint_costs_steps_but_not_the_run(make_attempt):
    attempt = make_attempt()
    assert attempt.go({"event": "checkpoint", "step": 6, "state": "verified", "signal": signal.SIGKILL}) == 137
    weights = attempt.run / "checkpoints" / "checkpoint-6" / "model.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    assert attempt.go() == 0, attempt.output
    assert attempt.events("resumed")[-1]["data"]["step"] == 4
    assert attempt.losses()[12] > 0  # and no step differs between the attempts


def test_killed_after_the_last_checkpoint_only_finishes(make_attempt):
    attempt = make_attempt()
    assert attempt.go({"event": "checkpoint", "step": 12, "state": "verified", "signal": signal.SIGKILL}) == 137
    assert not (attempt.run / "result.json").exists()
    assert attempt.go() == 0, attempt.output
    assert [event["data"]["step"] for event in attempt.events("step") if event["attempt"] == 2] == []
    result = attempt.events("result")[0]["data"]
    assert (result["steps"], result["attempt"]) == (12, 2)
    losses = attempt.losses()
    assert result["train_loss_first"] == pytest.approx((losses[1] + losses[2]) / 2)
    assert result["train_loss_last"] == pytest.approx((losses[11] + losses[12]) / 2)


def test_other_runs_checkpoint_is_resumed_when_the_config_names_it(make_attempt):
    first = make_attempt("first")
    assert first.go({"event": "eval", "step": 6, "signal": signal.SIGTERM}) == 75
    named = first.run / "checkpoints" / "checkpoint-6"
    second = make_attempt("second", output__resume_from_checkpoint=str(named))
    assert second.go(run_id="other") == 0, second.output
    assert second.events("resumed")[0]["data"]["step"] == 6
    assert list(second.losses()) == [7, 8, 9, 10, 11, 12]
    (named / "optimizer.pt").unlink()
    third = make_attempt("third", output__resume_from_checkpoint=str(named))
    assert third.go(run_id="other") == 2
    assert "optimizer.pt is missing; give a checkpoint-N directory" in third.exit_record()["message"]
