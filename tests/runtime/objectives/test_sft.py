import math

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from ftl_runtime.objectives.sft import sft_loss  # noqa: E402


def test_loss_of_two_trained_tokens_is_their_mean_negative_log_probability():
    # Vocabulary of 2. Before token 1: p(1) = 3/4; before token 2: p(0) = 1/5. The last logits predict nothing.
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, math.log(4)], [9.0, 9.0]]])
    labels = torch.tensor([[0, 1, 0]])
    assert sft_loss(logits, labels, 2).item() == pytest.approx((math.log(4 / 3) + math.log(5)) / 2)


def test_masked_tokens_and_the_first_of_a_row_count_nothing():
    logits = torch.tensor([[[0.0, math.log(3)], [50.0, -50.0], [0.0, 0.0]]])
    labels = torch.tensor([[1, 1, -100]])
    assert sft_loss(logits, labels, 1).item() == pytest.approx(math.log(4 / 3))


def test_micro_batches_add_up_to_the_batch():
    torch.manual_seed(0)
    logits, labels = torch.randn(4, 6, 11), torch.randint(0, 11, (4, 6))
    parts = sum(sft_loss(logits[i : i + 1], labels[i : i + 1], 20) for i in range(4))
    assert parts.item() == pytest.approx(sft_loss(logits, labels, 20).item(), rel=1e-6)


def test_batch_without_trained_tokens_has_loss_zero_and_zero_gradient():
    logits = torch.randn(1, 3, 5, requires_grad=True)
    loss = sft_loss(logits, torch.full((1, 3), -100), 0)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.abs().sum().item() == 0


def test_loss_is_computed_in_fp32():
    assert sft_loss(torch.randn(1, 3, 5, dtype=torch.bfloat16), torch.tensor([[0, 1, 2]]), 2).dtype == torch.float32
