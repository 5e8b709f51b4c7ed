"""Ranks that share out the tokens of a row train as one process does: losses, norms, gradients, weights."""

import json
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from together import run_ranks, train_together
from torch import equal

from ftl.errors import ConfigError
from ftl_runtime.context import Device
from ftl_runtime.models.attention import AttentionPlan
from ftl_runtime.parallel.sequence import split

pytestmark = pytest.mark.torch

# Rows of several documents, some of which end in one rank and begin in the other; two micro-batches a step.
COMMON = {
    "output__eval_steps": 3,
    "optim__max_steps": 4,
    "data__val_set_size": 7,
    "optim__max_grad_norm": 0.3,
    "optim__micro_batch_size": 2,
}
SHARED = {**COMMON, "parallel__context_size": 2}
LORA = {"kind": "lora", "rank": 4, "alpha": 8, "dropout": 0.0}


def numbers(attempt) -> list[float]:
    steps = [value for event in attempt.events("step") for value in (event["data"]["loss"], event["data"]["grad_norm"])]
    return steps + [event["data"]["loss"] for event in attempt.events("eval")]


def weights_of(attempt):
    return load_file(next((attempt.run / "output").glob("*model.safetensors")))


def result_of(attempt):
    return json.loads((attempt.run / "result.json").read_text())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"data__sample_packing": False, "adapter": LORA, "precision__gradient_checkpointing": True},
        {"parallel__fsdp": {}},
    ],
    ids=["packed", "rows of one text, lora, recomputed", "weights in shards"],
)
def test_shared_rows_give_losses_norms_and_model_of_one_process(make_attempt, weights, changes):
    one = make_attempt("one", model=weights, **COMMON, **changes)
    two = make_attempt("two", model=weights, **SHARED, **changes)
    one.train()
    train_together(two, 2)
    assert min(event["data"]["grad_norm"] for event in one.events("step")) > 0.1
    assert len(numbers(two)) == 4 + 4 + 3
    assert numbers(two) == pytest.approx(numbers(one), rel=1e-4)
    assert result_of(two)["tokens"] == result_of(one)["tokens"]
    assert result_of(two)["spread"].endswith(", 2 of which share the tokens of a row")
    ours, theirs = weights_of(two), weights_of(one)
    assert ours.keys() == theirs.keys()
    assert all((ours[name] - theirs[name]).abs().max() < 1e-4 for name in ours)


def test_two_copies_that_share_rows_give_the_losses_of_one_process(make_attempt, weights):
    one = make_attempt("one", model=weights, **COMMON)
    four = make_attempt("four", model=weights, **SHARED | {"optim__micro_batch_size": 1})
    one.train()
    train_together(four, 4)
    assert numbers(four) == pytest.approx(numbers(one), rel=1e-4)


def test_shared_rows_resume_bit_for_bit_and_in_one_process(make_attempt, weights):
    straight, stopped, alone = (
        make_attempt(name, model=weights, **SHARED) for name in ("straight", "stopped", "alone")
    )
    train_together(straight, 2)
    for attempt in (stopped, alone):
        train_together(attempt, 2, stop_at=2)
    train_together(stopped, 2)
    assert [event["data"]["step"] for event in stopped.events("resumed")] == [2]
    assert stopped.losses() == straight.losses()
    assert all(equal(weights_of(stopped)[name], tensor) for name, tensor in weights_of(straight).items())
    alone.config["parallel"]["context_size"] = 1
    alone.train()
    assert numbers(alone) == pytest.approx(numbers(straight), rel=1e-4)


def _attend_as_whole(device) -> None:
    """Three documents of 5, 1 and 7 tokens over two stretches each of two ranks: with the padding four times four."""
    from ftl_runtime import ranks
    from ftl_runtime.kernels.varlen import varlen_attention

    ranks.join(device, timeout_s=60)
    found = split(AttentionPlan("varlen", "borders"), device)
    torch.manual_seed(0)
    starts = torch.tensor([0, 5, 6, 13], dtype=torch.int32)
    wholes = [torch.randn(1, heads, 16, 8, requires_grad=True) for heads in (4, 2, 2)]
    direction = torch.randn(1, 16, 4, 8)
    rows = torch.arange(13)
    batch = {name: rows[None].clone() for name in ("input_ids", "labels", "position_ids")}
    batch |= {"trained_rows": torch.tensor([0, 4, 9, 11]), "trained_targets": torch.tensor([1, 5, 10, 12])}
    part = found.share({**batch, "cu_seq_lens_q": starts})
    places = [[0, 1, 2, 3, 12, 13, 14, 15], [4, 5, 6, 7, 8, 9, 10, 11]][device.rank]
    assert part["input_ids"][0].tolist() == [place if place < 13 else 0 for place in places]
    assert part["labels"][0].tolist() == [place if place < 13 else -100 for place in places]
    assert part["trained_rows"].tolist() == [[0], [0, 5, 7]][device.rank]
    assert part["trained_targets"].tolist() == [[1], [5, 10, 12]][device.rank]
    assert part["cu_seq_lens_q"].tolist() == [0, 5, 6, 13, 16]
    for window in (None, 3):
        options = {"sliding_window": window, "cu_seq_lens_q": part["cu_seq_lens_q"], "max_length_q": 7}
        expected, _ = varlen_attention(torch.nn.Module(), *wholes, None, **options)
        wanted = torch.autograd.grad((expected * direction).sum(), wholes)
        parts = [whole[:, :, places].detach().requires_grad_() for whole in wholes]
        got, _ = found.attention(torch.nn.Module(), *parts, None, **options)
        grads = torch.autograd.grad((got * direction[:, places]).sum(), parts)
        torch.testing.assert_close(got, expected[:, places])
        for grad, whole in zip(grads, wanted, strict=True):
            torch.testing.assert_close(grad, whole[:, :, places])


def test_attention_of_shared_rows_has_the_values_and_gradients_of_whole_ones():
    run_ranks(partial(_as_one_copy, _attend_as_whole), 2)


def _as_one_copy(target, device) -> None:
    from dataclasses import replace

    target(replace(device, ranks_per_copy=device.num_ranks))


def test_attention_that_is_not_told_borders_is_refused():
    device = Device("cpu", has_bf16=True, rank=0, num_ranks=2, ranks_per_copy=2)
    with pytest.raises(ConfigError, match="and this model has sdpa; remove attn_implementation"):
        split(AttentionPlan("sdpa", "positions"), device)
