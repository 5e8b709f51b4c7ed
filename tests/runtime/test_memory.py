"""A training that runs out of memory goes on in smaller pieces, with the same batch."""

import json
import signal

import pytest

from ftl.config.train import TrainConfig
from ftl_runtime.memory import fitted, keep_fit, shrunk
from ftl_runtime.verdict import Verdict


def config(micro, accumulation=1, *, checkpointing=False, **optim):
    return TrainConfig.model_validate(
        {
            "model": {"base": "b"},
            "data": {"datasets": [{"path": "p", "type": "completion"}]},
            "optim": {
                "learning_rate": 1e-3,
                "micro_batch_size": micro,
                "gradient_accumulation_steps": accumulation,
                **optim,
            },
            "precision": {"gradient_checkpointing": checkpointing},
        }
    )


@pytest.mark.parametrize(
    ("micro", "accumulation", "expected"),
    [(8, 1, [(4, 2), (2, 4), (1, 8)]), (6, 2, [(3, 4), (1, 12)]), (5, 1, [(1, 5)]), (1, 3, [])],
)
def test_micro_batch_shrinks_by_divisors_and_then_activations_are_recomputed_and_moved(micro, accumulation, expected):
    found, cfg = [], config(micro, accumulation)
    while (cfg := shrunk(cfg)) is not None and not cfg.precision.gradient_checkpointing:
        found.append((cfg.optim.micro_batch_size, cfg.optim.gradient_accumulation_steps))
    assert found == expected
    assert cfg is not None and cfg.precision.gradient_checkpointing and not cfg.precision.activation_offloading
    assert shrunk(cfg, has_gpu=False) is None
    assert shrunk(cfg).precision.activation_offloading
    assert shrunk(shrunk(cfg)) is None


def test_evaluation_batch_shrinks_where_it_has_a_size_of_its_own():
    assert shrunk(config(4)).optim.eval_batch_size is None
    assert shrunk(config(4, eval_batch_size=16)).optim.eval_batch_size == 8


def test_later_attempts_keep_to_what_fitted(tmp_path):
    cfg = config(4)
    assert fitted(cfg, tmp_path) is cfg
    told = keep_fit(shrunk(cfg), tmp_path)
    assert told == "micro_batch_size 2, gradient_accumulation_steps 2"
    assert fitted(cfg, tmp_path) == shrunk(cfg)


@pytest.mark.torch
def test_run_out_of_memory_goes_on_with_the_same_batch(make_attempt, tmp_path, monkeypatch):
    from ftl_runtime import run as runtime

    shape = {
        "data__sample_packing": False,
        "data__val_set_size": 0,
        "optim__micro_batch_size": 4,
        "optim__gradient_accumulation_steps": 1,
        "optim__max_steps": 5,
    }
    straight, short = (make_attempt(name, **shape) for name in ("straight", "short"))
    straight.train()
    fault = {"event": "step", "step": 3, "oom_times": 2, "marker": str(tmp_path / "times")}
    assert short.go(fault, {"event": "step", "step": 4, "signal": signal.SIGTERM}) == 75, short.output
    messages = [event["data"]["message"] for event in short.events("warning")]
    again = ["trained on with micro_batch_size 2, gradient_accumulation_steps 2", "with micro_batch_size 1, gradient"]
    assert len(messages) == 2 and all(told in text for told, text in zip(again, messages, strict=True)), messages
    assert messages[0].startswith("out of GPU memory after step 3: ")
    assert [event["data"]["step"] for event in short.events("resumed")] == [2, 2]
    seen = []
    train = runtime.run
    monkeypatch.setattr(runtime, "run", lambda cfg, ctx: (seen.append(cfg.optim.micro_batch_size), train(cfg, ctx)))
    short.train()  # the next attempt, which nobody told anything
    assert seen == [1]
    losses = {event["data"]["step"]: event["data"]["loss"] for event in short.events("step")}
    assert losses == pytest.approx(straight.losses(), rel=1e-5)


def test_without_leave_nothing_is_tried_again(tmp_path):
    from ftl.contract import JobSpec, Paths
    from ftl_runtime.supervisor import _shrink

    cfg = config(4).model_dump(mode="json")
    (tmp_path / "config.json").write_text(json.dumps(cfg | {"watch": {"retries_smaller": False}}))
    job = JobSpec(run_id="r", paths=Paths(bundle=str(tmp_path), run=str(tmp_path), cache=str(tmp_path)))
    verdict = Verdict(70, "out-of-memory", "out of GPU memory after step 3; do this", may_shrink=True)
    assert not _shrink(job, tmp_path, verdict)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
