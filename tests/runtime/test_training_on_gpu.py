"""Trainings on a GPU: stopped in the middle and gone on with, their losses and weights are those of a straight run."""

import hashlib

import pytest

pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.gpu]

LORA = {"kind": "lora", "rank": 4, "alpha": 8, "dropout": 0.1}
CASES = {
    "full packed bf16": {},
    "full padded": {"data__sample_packing": False},
    "full fp16": {"precision__compute": "fp16"},
    "full fp32": {"precision__compute": "fp32"},
    "checkpointed": {"precision__gradient_checkpointing": True},
    "sdpa": {"model__attention": "sdpa"},
    "lora with dropout": {"adapter": LORA},
    "nf4": {"adapter": LORA, "quant": {"in_4bit": True}},
    "int8": {"adapter": LORA, "quant": {"in_8bit": True}},
    "adamw 8 bit": {"optim__optimizer": "adamw_bnb_8bit"},
}


def weights_of(attempt) -> dict[str, str]:
    files = (attempt.run / "output").glob("*.safetensors")
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize("case", CASES)
def test_run_that_was_stopped_equals_a_straight_one(case, make_attempt, weights):
    config = {"output__logging_steps": 1, **CASES[case]}
    if "adapter" in config:
        config["model"] = weights
    straight, stopped = (make_attempt(name, **config) for name in ("straight", "stopped"))
    for attempt in (straight, stopped):
        attempt.spec["resources"] = {"gpus": 1}
    straight.train()
    stopped.train(stop_at=5)
    stopped.train()
    losses = straight.losses()
    assert losses[max(losses)] < losses[1]
    assert stopped.losses() == losses
    assert weights_of(stopped) == weights_of(straight) != {}
