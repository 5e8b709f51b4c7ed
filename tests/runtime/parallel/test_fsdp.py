"""A model in shards trains as whole ones do: the same losses and norms, the same files."""

import json

import pytest
import torch
from safetensors.torch import load_file
from together import train_together
from torch import equal

from ftl.config.parallel import FsdpSection, ParallelSection
from ftl.errors import ConfigError
from ftl_runtime.context import Device
from ftl_runtime.parallel.fsdp import layout, pieces, shard

pytestmark = pytest.mark.torch

# As in test_data_parallel.py. Two rows to evaluate, in one batch: the second rank has none of its own.
TWO, ONE = {"optim__micro_batch_size": 1}, {"optim__micro_batch_size": 2}
COMMON = {
    "output__eval_steps": 3,
    "optim__max_steps": 6,
    "data__val_set_size": 7,
    "optim__eval_batch_size": 2,
    "optim__max_grad_norm": 0.3,
}
FSDP = {**TWO, **COMMON, "parallel__fsdp": {}}
LORA = {"kind": "lora", "rank": 4, "alpha": 8, "dropout": 0.0}


def numbers(attempt) -> list[float]:
    steps = [value for event in attempt.events("step") for value in (event["data"]["loss"], event["data"]["grad_norm"])]
    return steps + [event["data"]["loss"] for event in attempt.events("eval")]


def weights_of(attempt, name="model.safetensors"):
    return load_file(attempt.run / "output" / name)


@pytest.fixture(scope="module")
def alone(attempt_below, tmp_path_factory):
    attempt = attempt_below(tmp_path_factory.mktemp("alone"), **ONE, **COMMON)
    attempt.train()
    return attempt


def test_shards_give_losses_norms_and_model_of_one_process(make_attempt, alone):
    attempt = make_attempt("sharded", **FSDP)
    seen = train_together(attempt, 2)
    assert [(rank["wrapper"], rank["world"]) for rank in seen] == [("FSDPLlamaForCausalLM", 2)] * 2
    # 304 x 32 and 64 x 32 weights are cut in halves by rows.
    for name, half in (("model.embed_tokens.weight", [152, 32]), ("model.layers.1.mlp.up_proj.weight", [32, 32])):
        assert [rank["local"][name] for rank in seen] == [half, half]
    result = json.loads((attempt.run / "result.json").read_text())
    assert result["spread"] == "3 pieces, each in 2 shards (FSDP2)"  # two layers, and the rest
    assert result["num_parameters"] == json.loads((alone.run / "result.json").read_text())["num_parameters"]
    assert min(event["data"]["grad_norm"] for event in alone.events("step")) > 0.3  # all of them are clipped
    assert len(numbers(attempt)) == 6 + 6 + 3
    assert numbers(attempt) == pytest.approx(numbers(alone), rel=1e-4)
    ours, theirs = weights_of(attempt), weights_of(alone)
    assert ours.keys() == theirs.keys()
    assert all((ours[name] - theirs[name]).abs().max() < 1e-4 for name in ours)
    assert (attempt.run / "output/config.json").read_text() == (alone.run / "output/config.json").read_text()


def test_shards_resume_bit_for_bit_and_in_another_number(make_attempt, alone):
    straight, stopped, merged = (make_attempt(name, **FSDP) for name in ("straight", "stopped", "merged"))
    train_together(straight, 2)
    for attempt in (stopped, merged):
        train_together(attempt, 2, stop_at=2)
    train_together(stopped, 2)
    assert [event["data"]["step"] for event in stopped.events("resumed")] == [2]
    assert stopped.losses() == straight.losses()
    ours, theirs = weights_of(stopped), weights_of(straight)
    assert all(equal(ours[name], theirs[name]) for name in theirs)
    merged.config["optim"]["micro_batch_size"] = 2
    merged.train(stop_at=4)
    assert "fsdp_config has no effect" in merged.events("warning")[0]["data"]["message"]
    merged.config["optim"]["micro_batch_size"] = 1
    train_together(merged, 2)
    assert [event["data"]["step"] for event in merged.events("resumed")] == [2, 4]
    assert numbers(merged) == pytest.approx(numbers(alone), rel=1e-4)


def test_sharded_lora_in_bf16_with_checkpointing_gives_the_losses_of_one_process(make_attempt, weights):
    lora = {"model": weights, "adapter": LORA, "precision__compute": "bf16", **COMMON}
    one = make_attempt("one", **lora, **ONE)
    one.train()
    recomputed = {"parallel__fsdp": {"activation_checkpointing": True, "reshard_after_forward": False}}
    sharded = make_attempt("sharded", **lora, **TWO, **recomputed)
    seen = train_together(sharded, 2)
    assert seen[0]["wrapper"] == "FSDPPeftModelForCausalLM"
    assert numbers(sharded) == pytest.approx(numbers(one), rel=0.02)
    ours, theirs = (weights_of(attempt, "adapter_model.safetensors") for attempt in (sharded, one))
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: t.shape for name, t in theirs.items()}


@pytest.mark.parametrize("optimizer", ["adamw_torch", "sgd"])
def test_optimizer_steps_on_shards_as_on_whole_weights(make_attempt, optimizer):
    chosen = {"optim__optimizer": optimizer, **COMMON, "optim__max_steps": 4, "output__save_steps": 4}
    one, sharded = make_attempt("one", **ONE, **chosen), make_attempt("sharded", **TWO, **chosen, parallel__fsdp={})
    one.train()
    train_together(sharded, 2, stop_at=2)
    train_together(sharded, 2)
    assert numbers(sharded) == pytest.approx(numbers(one), rel=1e-4)


@pytest.mark.parametrize(
    ("weight", "dtype", "told"),
    [
        (torch.zeros(4, 1, dtype=torch.int8), torch.bfloat16, "the base holds weight in 8 bits"),
        (torch.zeros(4, 1), torch.float16, "not trained in fp16, which this GPU needs"),
    ],
    ids=["8 bits", "fp16"],
)
def test_what_only_the_machine_or_the_base_shows_is_refused(weight, dtype, told):
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(weight, requires_grad=False)
    with pytest.raises(ConfigError, match=told):
        shard(model, ParallelSection(fsdp=FsdpSection()), dtype, Device("cpu", has_bf16=True, rank=0, num_ranks=2))


def test_layer_that_the_model_lacks_is_told_with_those_it_has():
    model = torch.nn.Module()
    model.layers = torch.nn.ModuleList([torch.nn.Linear(2, 2)])
    with pytest.raises(ConfigError, match="LlamaDecoderLayer: the model has no such layer; its layers are Linear"):
        pieces(model, ["LlamaDecoderLayer"])


@pytest.mark.parametrize(
    ("sizes", "num_ranks", "found"),
    [
        ({"fsdp": {}}, 8, (1, 8)),
        ({}, 8, (8, 1)),
        ({"fsdp": {}, "num_shards": 4}, 8, (2, 4)),
        ({"fsdp": {}, "num_copies": 2}, 16, (2, 8)),
        ({"fsdp": {}, "num_copies": 4, "num_shards": 8}, 32, (4, 8)),
        ({"num_copies": 8}, 8, (8, 1)),
        ({"fsdp": {}}, 1, (1, 1)),
    ],
    ids=["shards", "copies", "shards of 4", "2 copies", "both", "copies said", "alone"],
)
def test_copies_and_shards_come_to_the_number_of_ranks(sizes, num_ranks, found):
    assert layout(ParallelSection.model_validate(sizes), num_ranks) == found


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"fsdp": {}, "num_shards": 3}, "dp_shard_size: 3: do not come to the 8 processes"),
        ({"fsdp": {}, "num_copies": 2, "num_shards": 2}, "dp_replicate_size: 2 and dp_shard_size: 2: do not come"),
        ({"num_copies": 16}, "dp_replicate_size: 16: do not come"),
    ],
    ids=["3 of 8", "4 of 8", "16 of 8"],
)
def test_other_numbers_of_ranks_are_refused(sizes, told):
    with pytest.raises(ConfigError, match=told):
        layout(ParallelSection.model_validate(sizes), 8)
