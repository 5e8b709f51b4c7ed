"""The head with its loss in one, against the two steps it stands for."""

import pytest
import torch
from torch.nn.functional import cross_entropy, linear
from transformers import AutoModelForCausalLM, CohereConfig, Gemma2Config, LlamaConfig

from ftl_runtime.kernels import head

pytestmark = pytest.mark.torch

TINY = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
}


def drawn(dtype: torch.dtype, *, has_bias: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(3)
    hidden_ND = torch.randn(50, 8, generator=generator).to(dtype).requires_grad_()
    weight_VD = torch.randn(30, 8, generator=generator).to(dtype).requires_grad_()
    bias_V = torch.randn(30, generator=generator).to(dtype).requires_grad_() if has_bias else None
    return hidden_ND, weight_VD, bias_V


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("rows_per_chunk", [7, 64])
def test_loss_and_gradients_are_those_of_logits_and_cross_entropy(monkeypatch, has_bias, rows_per_chunk):
    monkeypatch.setattr(head, "_rows_per_chunk", lambda weight: rows_per_chunk)
    rows_M = torch.arange(0, 50, 2)
    targets_M = (rows_M * 7) % 30
    fused, plain = drawn(torch.float64, has_bias=has_bias), drawn(torch.float64, has_bias=has_bias)
    loss = head.summed_cross_entropy(*fused, rows_M, targets_M)
    (3 * loss).backward()
    expected = cross_entropy(linear(*plain)[rows_M], targets_M, reduction="sum")
    (3 * expected).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for ours, theirs in zip(fused, plain, strict=True):
        if ours is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_loss_by_probability_weighs_each_token_with_a_constant():
    """Each token's loss times its probability, through which no gradient goes."""
    rows_M = torch.arange(0, 50, 2)
    targets_M = (rows_M * 7) % 30
    fused, plain = drawn(torch.float64, has_bias=True), drawn(torch.float64, has_bias=True)
    loss = head.summed_cross_entropy(*fused, rows_M, targets_M, by_probability=True)
    loss.backward()
    logits_MV = linear(*plain)[rows_M]
    losses_M = cross_entropy(logits_MV, targets_M, reduction="none")
    probabilities_M = logits_MV.softmax(1)[torch.arange(25), targets_M].detach()
    expected = (losses_M * probabilities_M).sum()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_bf16_loss_is_summed_in_fp32():
    hidden_ND, weight_VD, _ = drawn(torch.bfloat16, has_bias=False)
    rows_M, targets_M = torch.arange(50), torch.arange(50) % 30
    loss = head.summed_cross_entropy(hidden_ND, weight_VD, None, rows_M, targets_M)
    expected = cross_entropy(linear(hidden_ND, weight_VD).float(), targets_M, reduction="sum")
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_nothing_trained_gives_zero_and_zero_gradients():
    hidden_ND, weight_VD, _ = drawn(torch.float32, has_bias=False)
    none = torch.empty(0, dtype=torch.int64)
    loss = head.summed_cross_entropy(hidden_ND, weight_VD, None, none, none)
    loss.backward()
    assert loss.item() == 0.0
    assert not hidden_ND.grad.any()
    assert not weight_VD.grad.any()


def test_frozen_head_gets_no_gradient_and_costs_no_product(monkeypatch):
    hidden_ND, weight_VD, _ = drawn(torch.float32, has_bias=False)
    monkeypatch.setattr(head, "_add_product_", lambda *args: pytest.fail("the head is frozen"))
    head.summed_cross_entropy(hidden_ND, weight_VD.detach(), None, torch.arange(50), torch.arange(50) % 30).backward()
    assert hidden_ND.grad.any()


def test_head_of_llama_is_split_off():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**TINY))
    before = torch.get_rng_state()
    assert head.splits_off_head(model)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "config", [CohereConfig(**TINY, logit_scale=0.5), Gemma2Config(**TINY, head_dim=8)], ids=["scaled", "capped"]
)
def test_head_whose_logits_are_changed_afterwards_is_not_split_off(config):
    torch.manual_seed(0)
    assert not head.splits_off_head(AutoModelForCausalLM.from_config(config))


def test_model_gives_the_loss_in_place_of_logits_and_its_logits_afterwards():
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(LlamaConfig(**TINY))
    ids_BT = torch.tensor([[1, 2, 3, 4, 5]])
    logits = model(input_ids=ids_BT).logits
    targets_M, rows_M = ids_BT[0, 1:], torch.arange(4)

    def loss(hidden_BTD, weight_VD, bias_V):
        return head.summed_cross_entropy(hidden_BTD.flatten(0, 1), weight_VD, bias_V, rows_M, targets_M)

    with head.head_gives(model, loss):
        given = model(input_ids=ids_BT).logits
    assert float(given) == pytest.approx(float(cross_entropy(logits[0, :-1], targets_M, reduction="sum")), rel=1e-5)
    assert torch.equal(model(input_ids=ids_BT).logits, logits)
