"""ZeRO trains as one process does: the same losses and norms, the same files, and a stop changes nothing.

All trainings share one pair of ranks: what costs time is to start them.
"""

import json
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from together import train_in_turn
from torch import equal

from ftl.config.optim import OptimSection
from ftl.config.zero import Offload, Zero
from ftl.errors import ConfigError
from ftl_runtime.context import Device
from ftl_runtime.parallel.deepspeed import Plan, plan, settings
from ftl_runtime.parallel.zerostates import States

pytestmark = pytest.mark.torch

# As in test_data_parallel.py. Two rows to evaluate, in one batch: the second rank has none of its own.
TWO, ONE = {"optim__micro_batch_size": 1}, {"optim__micro_batch_size": 2}
COMMON = {
    "output__eval_steps": 3,
    "optim__max_steps": 4,
    "data__val_set_size": 7,
    "optim__eval_batch_size": 2,
    "optim__max_grad_norm": 0.3,
}
LORA = {"kind": "lora", "rank": 4, "alpha": 8, "dropout": 0.1}


def zero(stage: int, **rest: Any) -> dict[str, Any]:
    return {"parallel__deepspeed": {"zero_optimization": {"stage": stage, **rest}}}


OVERLAPPING = {"overlap_comm": True, "contiguous_gradients": True}
CPU = {"device": "cpu"}
KINDS: dict[str, dict[str, Any]] = {
    "states in main memory": zero(1, offload_optimizer=CPU),
    "stage 2": zero(2, **OVERLAPPING),
    "stage 3": zero(3, **OVERLAPPING),
    "all in main memory": zero(3, offload_optimizer=CPU, offload_param=CPU),
    "stage 1 in bf16": {**zero(1), "precision__compute": "bf16"},
    "lora in bf16": {
        **zero(3),
        "precision__compute": "bf16",
        "precision__gradient_checkpointing": True,
        "adapter": LORA,
    },
    "8-bit states": {**zero(2), "optim__optimizer": "adamw_bnb_8bit"},
}


RESUMED = ("stage 2", "all in main memory", "stage 1 in bf16", "lora in bf16", "8-bit states")


@dataclass
class Trained:
    straight: dict[str, Any]
    """Kind -> the attempt that ran to its end."""
    stopped: dict[str, Any]
    """The same, stopped after two steps and gone on with."""
    seen: dict[str, list[dict[str, Any]]]
    """Kind -> what each rank had built."""
    alone: Any
    moved: Any
    """One process, then two with stage 3."""


@pytest.fixture(scope="module")
def trained(attempt_below, tmp_path_factory, weights):
    directory = tmp_path_factory.mktemp("zero")

    def make(name: str, **config: Any) -> Any:
        model = {"model": weights} if "adapter" in config else {}
        return attempt_below(directory, name, **{**COMMON, **model, **config})

    alone, moved = make("alone", **ONE), make("moved", **ONE)
    alone.train()
    moved.train(stop_at=2)
    moved.config["optim"]["micro_batch_size"] = 1
    moved.config["parallel"] = {"deepspeed": KINDS["stage 3"]["parallel__deepspeed"]}
    straight = {kind: make(f"{kind} straight", **TWO, **config) for kind, config in KINDS.items()}
    stopped = {kind: make(f"{kind} stopped", **TWO, **config) for kind, config in KINDS.items() if kind in RESUMED}
    trainings = [(attempt, None) for attempt in straight.values()]
    for attempt in stopped.values():
        trainings += [(attempt, 2), (attempt, None)]
    seen = train_in_turn([*trainings, (moved, 3)], 2)
    moved.config["optim"]["micro_batch_size"] = 2
    moved.train()
    return Trained(straight, stopped, dict(zip(straight, seen, strict=False)), alone, moved)


def numbers(attempt) -> list[float]:
    steps = [value for event in attempt.events("step") for value in (event["data"]["loss"], event["data"]["grad_norm"])]
    return steps + [event["data"]["loss"] for event in attempt.events("eval")]


def weights_of(attempt):
    name = "adapter_model" if "adapter" in attempt.config else "model"
    return load_file(attempt.run / f"output/{name}.safetensors")


@pytest.mark.parametrize("kind", ["states in main memory", "stage 2", "stage 3", "all in main memory"])
def test_shards_give_losses_norms_and_model_of_one_process(trained, kind):
    attempt, seen = trained.straight[kind], trained.seen[kind]
    assert [(rank["wrapper"], rank["world"], rank["compiled"]) for rank in seen] == [("DeepSpeedEngine", 2, [])] * 2
    assert min(event["data"]["grad_norm"] for event in trained.alone.events("step")) > 0.3  # all of them are clipped
    assert len(numbers(attempt)) == 4 + 4 + 3
    assert numbers(attempt) == pytest.approx(numbers(trained.alone), rel=1e-5)
    ours, theirs = weights_of(attempt), weights_of(trained.alone)
    assert ours.keys() == theirs.keys()
    assert all((ours[name] - theirs[name]).abs().max() < 1e-4 for name in ours)
    ours, theirs = (json.loads((one.run / "output/config.json").read_text()) for one in (attempt, trained.alone))
    assert ours == theirs


def test_result_says_how_the_training_was_laid_out(trained):
    told = {kind: json.loads((trained.straight[kind].run / "result.json").read_text())["spread"] for kind in KINDS}
    assert told["stage 2"] == "ZeRO stage 2 over 2 processes"
    assert told["all in main memory"] == "ZeRO stage 3 over 2 processes, optimizer states and weights in main memory"
    # 304 x 32 and 64 x 32 weights in halves.
    for name, half in (("model.embed_tokens.weight", 4864), ("model.layers.1.mlp.up_proj.weight", 1024)):
        assert [rank["part"][name] for rank in trained.seen["stage 3"]] == [half, half]
    results = [
        json.loads((one.run / "result.json").read_text()) for one in (trained.straight["stage 3"], trained.alone)
    ]
    assert results[0]["num_parameters"] == results[1]["num_parameters"]


@pytest.mark.parametrize("kind", RESUMED)
def test_shards_resume_bit_for_bit(trained, kind):
    straight, stopped = trained.straight[kind], trained.stopped[kind]
    assert [event["data"]["step"] for event in stopped.events("resumed")] == [2]
    assert numbers(stopped) == numbers(straight)
    ours, theirs = weights_of(stopped), weights_of(straight)
    assert all(equal(ours[name], theirs[name]) for name in theirs)


def test_training_goes_on_in_shards_and_out_of_them(trained):
    assert [event["data"]["step"] for event in trained.moved.events("resumed")] == [2, 3]
    assert "deepspeed has no effect with one process" in trained.moved.events("warning")[-1]["data"]["message"]
    assert numbers(trained.moved) == pytest.approx(numbers(trained.alone), rel=1e-5)


SIXTEEN_BITS = {"learning_rate": 1e-4, "micro_batch_size": 3, "gradient_accumulation_steps": 5, "max_grad_norm": 0.0}


def test_settings_are_those_of_the_config_in_the_words_of_deepspeed():
    asked = Zero(3, Offload(pin_memory=True), Offload(), {"overlap_comm": True, "reduce_bucket_size": 7}, "bf16", True)
    gpu = Device("cuda", has_bf16=True, rank=0, num_ranks=8)
    found = settings(Plan(asked, OptimSection(**SIXTEEN_BITS), torch.bfloat16, gpu), hidden_size=100)
    assert found == {
        "train_micro_batch_size_per_gpu": 3,
        "gradient_accumulation_steps": 5,
        "gradient_clipping": 0.0,
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": True,
            "reduce_bucket_size": 7,
            "stage3_prefetch_bucket_size": 9000,
            "stage3_param_persistence_threshold": 1000,
            "offload_optimizer": {"device": "cpu", "pin_memory": True},
            "offload_param": {"device": "cpu", "pin_memory": False},
        },
        "bf16": {"enabled": True},
        "communication_data_type": "bf16",
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": None,
    }


def test_one_process_is_left_alone_unless_it_offloads():
    one = Device("cpu", has_bf16=True, rank=0, num_ranks=1)
    optim = OptimSection(learning_rate=1.0)
    assert plan(Zero(2), optim, torch.float32, one) is None
    assert plan(Zero(2, Offload()), optim, torch.float32, one) is not None
    with pytest.raises(ConfigError, match="not trained in fp16, which this GPU needs"):
        plan(Zero(2), optim, torch.float16, one)


def test_states_of_blocks_are_not_divided_anew(trained):
    attempt = trained.straight["8-bit states"]
    checkpoint = attempt.run / "checkpoints/checkpoint-4"
    assert sorted(file.name for file in checkpoint.glob("zero_*")) == ["zero_0_of_2.pt", "zero_1_of_2.pt"]
    states = States(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))]), [], [], Device("cpu", True, 0, 3))
    with pytest.raises(ConfigError, match="checkpoint-4 has optimizer states in 2 shards, which cannot be divided"):
        states.load(checkpoint)
