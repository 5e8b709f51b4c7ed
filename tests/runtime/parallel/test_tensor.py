"""Ranks that hold a model between them train as one process does: the same losses, norms, weights and files."""

import json

import pytest
import torch
from safetensors.torch import load_file
from together import train_together
from torch import equal
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from ftl.errors import ConfigError
from ftl_runtime.context import Device
from ftl_runtime.parallel.tensor import cut

pytestmark = pytest.mark.torch

# Two ranks of one copy read the same two rows, in two micro-batches a step; norms are clipped.
COMMON = {
    "output__eval_steps": 3,
    "optim__max_steps": 4,
    "data__val_set_size": 7,
    "optim__max_grad_norm": 0.3,
    "optim__micro_batch_size": 2,
}
CUT = {**COMMON, "parallel__tensor_size": 2}


def numbers(attempt) -> list[float]:
    steps = [value for event in attempt.events("step") for value in (event["data"]["loss"], event["data"]["grad_norm"])]
    return steps + [event["data"]["loss"] for event in attempt.events("eval")]


def weights_of(attempt):
    return load_file(attempt.run / "output/model.safetensors")


@pytest.fixture(scope="module")
def with_head_norms(base, tmp_path_factory):
    """A Qwen3: each rank has the gradient of its own heads for the norms that all heads share."""
    import shutil

    from transformers import AutoModelForCausalLM, Qwen3Config

    directory = tmp_path_factory.mktemp("qwen3") / "base"
    shutil.copytree(base, directory)
    config = Qwen3Config(
        vocab_size=304,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=64,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    return directory


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_cut_model_gives_losses_norms_and_model_of_one_process(make_attempt, weights, with_head_norms, kind):
    model = {"llama": weights, "qwen3": with_head_norms}[kind]
    one, two = make_attempt("one", model=model, **COMMON), make_attempt("two", model=model, **CUT)
    one.train()
    train_together(two, 2, stop_at=3)
    seen = train_together(two, 2)
    # 64 x 32 weights are cut by rows, 32 x 64 ones by columns; the head is whole.
    for name, half in (("up_proj", [32, 32]), ("down_proj", [32, 32])):
        assert [rank["local"][f"model.layers.1.mlp.{name}.weight"] for rank in seen] == [half, half]
    assert seen[0]["local"]["lm_head.weight" if kind == "llama" else "model.embed_tokens.weight"] == [304, 32]
    assert min(event["data"]["grad_norm"] for event in one.events("step")) > 0.3
    assert len(numbers(two)) == 4 + 4 + 3
    assert numbers(two) == pytest.approx(numbers(one), rel=1e-4)
    result = json.loads((two.run / "result.json").read_text())
    assert result["spread"] == "a copy of the model, 14 weights of it in 2 parts each"  # 7 a layer
    assert result["tokens"] == json.loads((one.run / "result.json").read_text())["tokens"]
    ours, theirs = weights_of(two), weights_of(one)
    assert ours.keys() == theirs.keys()
    assert all((ours[name] - theirs[name]).abs().max() < 1e-4 for name in ours)


def test_cut_model_resumes_bit_for_bit_and_in_one_process(make_attempt, weights):
    straight, stopped, alone = (make_attempt(name, model=weights, **CUT) for name in ("straight", "stopped", "alone"))
    train_together(straight, 2)
    for attempt in (stopped, alone):
        train_together(attempt, 2, stop_at=2)
    train_together(stopped, 2)
    assert [event["data"]["step"] for event in stopped.events("resumed")] == [2]
    assert stopped.losses() == straight.losses()
    assert all(equal(weights_of(stopped)[name], tensor) for name, tensor in weights_of(straight).items())
    alone.config["parallel"]["tensor_size"] = 1
    alone.train(stop_at=3)
    alone.config["parallel"]["tensor_size"] = 2
    train_together(alone, 2)
    assert numbers(alone) == pytest.approx(numbers(straight), rel=1e-4)


def test_two_copies_in_two_parts_give_the_losses_of_one_process(make_attempt, weights):
    one = make_attempt("one", model=weights, **COMMON)
    one.train()
    four = make_attempt("four", model=weights, **CUT | {"optim__micro_batch_size": 1, "optim__optimizer": "sgd"})
    one_sgd = make_attempt("sgd", model=weights, **COMMON, optim__optimizer="sgd")
    one_sgd.train()
    train_together(four, 4)
    assert numbers(four) == pytest.approx(numbers(one_sgd), rel=1e-4)
    spread = "2 copies of the model, 14 weights of it in 2 parts each"
    assert json.loads((four.run / "result.json").read_text())["spread"] == spread


TINY = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 8}


@pytest.mark.parametrize(
    ("model", "dtype", "told"),
    [
        (
            lambda: GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=8)),
            torch.float32,
            "has no plan for cutting a gpt2 model",
        ),
        (
            lambda: LlamaForCausalLM(LlamaConfig(**TINY, num_attention_heads=4, num_key_value_heads=1)),
            torch.float32,
            "2: must divide the 1 num_key_value_heads of this model",
        ),
        (lambda: LlamaForCausalLM(LlamaConfig(**TINY, num_attention_heads=2)), torch.float16, "not trained in fp16"),
    ],
    ids=["no plan", "one key head", "fp16"],
)
def test_model_that_cannot_be_cut_is_refused(model, dtype, told):
    with pytest.raises(ConfigError, match=told):
        cut(model(), dtype, Device("cpu", has_bf16=True, rank=0, num_ranks=2, ranks_per_copy=2))
