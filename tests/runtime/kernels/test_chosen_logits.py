"""Logits of some tokens and sums over all of them, against the whole logits."""

import pytest
import torch
from torch.nn.functional import linear

from ftl_runtime.kernels import head

pytestmark = pytest.mark.torch

ROWS_M = torch.tensor([1, 4, 7, 9, 30, 49])
IDS_MK = torch.tensor([[0, 5, 5], [29, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11], [12, 13, 14]])
TEMPERATURES = (1.0, 2.5)


def drawn(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    hidden_ND = torch.randn(50, 8, generator=generator).to(dtype).requires_grad_()
    weight_VD = torch.randn(30, 8, generator=generator).to(dtype).requires_grad_()
    return hidden_ND, weight_VD, torch.randn(30, generator=generator).to(dtype).requires_grad_()


@pytest.mark.parametrize("rows_per_chunk", [12, 600], ids=["chunks", "whole"])
def test_values_and_gradients_are_those_of_the_whole_logits(monkeypatch, rows_per_chunk):
    monkeypatch.setattr(head, "_rows_per_chunk", lambda weight: rows_per_chunk // weight.element_size())
    fused, plain = drawn(torch.float64), drawn(torch.float64)
    found = head.chosen_logits(*fused, ROWS_M, IDS_MK, TEMPERATURES)
    logits_MV = linear(*plain)[ROWS_M]
    sums = [(logits_MV / temperature).logsumexp(1, keepdim=True) for temperature in TEMPERATURES]
    expected = torch.cat([logits_MV.gather(1, IDS_MK), *sums], 1)
    torch.testing.assert_close(found, expected.float())
    weights = torch.arange(found.numel()).view(found.shape).sin()
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for ours, theirs in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-5)


def test_bf16_head_sums_in_fp32_and_a_frozen_one_gets_no_gradient(monkeypatch):
    monkeypatch.setattr(head, "_add_product_", lambda *args, **kwargs: pytest.fail("the head is frozen"))
    hidden_ND, weight_VD, bias_V = drawn(torch.bfloat16)
    found = head.chosen_logits(hidden_ND, weight_VD.detach(), bias_V.detach(), ROWS_M, IDS_MK, (1.0,))
    assert found.dtype == torch.float32
    expected = linear(hidden_ND, weight_VD, bias_V)[ROWS_M].float().logsumexp(1)
    assert found[:, -1].tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    found.sum().backward()
    assert hidden_ND.grad.any()


def test_no_trained_token_gives_nothing_and_gradients_of_zero():
    hidden_ND, weight_VD, bias_V = drawn(torch.float32)
    none = torch.empty(0, dtype=torch.int64)
    found = head.chosen_logits(hidden_ND, weight_VD, bias_V, none, none.view(0, 1), (1.0,))
    assert found.shape == (0, 2)
    found.sum().backward()
    assert not hidden_ND.grad.any() and not weight_VD.grad.any()
