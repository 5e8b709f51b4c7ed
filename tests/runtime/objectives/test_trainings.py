"""Each objective trains a tiny model: the loss falls, and the better answers win."""

import hashlib
import math

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from ftl.errors import PreemptedError  # noqa: E402

LORA = {"kind": "lora", "rank": 8, "alpha": 16}
EVALUATED = {"data__val_set_size": 8, "output__eval_strategy": "epoch"}


def digest(file) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def measured(step: dict) -> dict:
    return {name: value for name, value in step.items() if "/" in name or name == "loss"}


@pytest.mark.parametrize("adapter", [LORA, None], ids=["lora", "full"])
def test_dpo_begins_at_log_2_and_learns_the_preference(train, pairs, adapter):
    rate = 1e-2 if adapter else 1e-3
    training = train(pairs, {"kind": "dpo"}, adapter=adapter, optim__learning_rate=rate, **EVALUATED)
    assert training.losses[0] == pytest.approx(math.log(2))
    assert training.losses[-1] < 0.65
    first, *_, last = training.of("eval")
    assert (first["loss"], first["rewards/margins"]) == (pytest.approx(math.log(2)), 0)
    assert last["loss"] < 0.62
    assert last["rewards/accuracies"] == 1
    assert "perplexity" not in last
    assert training.of("step")[-1]["rewards/margins"] > 0
    assert training.of("result")[0]["metrics"].items() <= last.items()


@pytest.mark.parametrize("objective", [{"kind": "dpo", "rpo_alpha": 0.5}, {"kind": "ipo"}], ids=["rpo", "ipo"])
def test_eight_pairs_at_once_are_eight_after_each_other(train, pairs, objective):
    whole = train(pairs, objective, name="whole", adapter=LORA, optim__max_steps=3)
    parts = {"optim__micro_batch_size": 1, "optim__gradient_accumulation_steps": 8, "optim__max_steps": 3}
    single = train(pairs, objective, name="single", adapter=LORA, **parts)
    assert single.losses == pytest.approx(whole.losses, rel=1e-4)
    assert single.losses[-1] < single.losses[0]
    for one, other in zip(single.of("step"), whole.of("step"), strict=True):
        assert measured(one) == pytest.approx(measured(other), rel=1e-3, abs=1e-5)


def test_stopped_dpo_with_dropout_goes_on_bit_for_bit(train, pairs):
    """Logged every two steps, and stopped between."""
    adapter = {**LORA, "dropout": 0.1}
    settings = {"adapter": adapter, "output__logging_steps": 2, "output__eval_steps": 1, "output__eval_strategy": None}
    settings |= {"data__val_set_size": 8}
    straight = train(pairs, {"kind": "dpo"}, name="straight", **settings)
    with pytest.raises(PreemptedError, match="stopped at step 3 of 6"):
        train(pairs, {"kind": "dpo"}, name="stopped", stop_at=("eval", 3), **settings)
    resumed = train(pairs, {"kind": "dpo"}, name="stopped", **settings)
    assert [data["step"] for data in resumed.of("step")] == [4, 6]
    assert [measured(data) for data in resumed.of("step")] == [measured(data) for data in straight.of("step")[1:]]
    weights = "adapter_model.safetensors"
    assert digest(resumed.output / weights) == digest(straight.output / weights)


def test_dpo_without_a_reference_compares_with_nothing(train, pairs):
    training = train(pairs, {"kind": "dpo", "dpo_reference_free": True}, adapter=LORA, optim__max_steps=1)
    metrics = training.of("step")[0]
    assert metrics["rewards/chosen"] == pytest.approx(0.1 * metrics["logps/chosen"])


def test_dropout_of_the_model_leaves_the_reference_alone(train, pairs, weights, tmp_path):
    """The reference is read without dropout: policy and reference then differ at the first step by dropout alone."""
    import json
    import shutil

    base = tmp_path / "base"
    shutil.copytree(weights, base)
    config = json.loads((base / "config.json").read_text()) | {"attention_dropout": 0.5}
    (base / "config.json").write_text(json.dumps(config))
    arguments = {"adapter": LORA, "optim__max_steps": 1, **EVALUATED, "model__base": str(base)}
    training = train(pairs, {"kind": "dpo"}, **arguments)
    assert training.of("eval")[0]["loss"] == pytest.approx(math.log(2))
    assert training.of("step")[0]["rewards/margins"] != 0
