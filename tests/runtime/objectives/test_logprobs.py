import math

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from ftl_runtime.objectives import logprobs  # noqa: E402
from ftl_runtime.objectives.logprobs import log_sum_squares, token_logprobs  # noqa: E402


@pytest.fixture(params=[2**28, 1], ids=["one chunk", "a token at a time"], autouse=True)
def chunk_bytes(request, monkeypatch):
    monkeypatch.setattr(logprobs, "_CHUNK_BYTES", request.param)


def test_logprobs_of_four_tokens_by_hand():
    # Vocabulary of 2. Before token 1: p(1) = 3/4; before token 2: p(0) = 1/5; token 3 has no label.
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, math.log(4)], [9.0, 0.0], [9.0, 9.0]]])
    labels = torch.tensor([[1, 1, 0, -100]])
    expected = [math.log(3 / 4), math.log(1 / 5), 0.0]
    assert token_logprobs(logits, labels)[0].tolist() == pytest.approx(expected)


def test_log_sum_squares_by_hand():
    logits = torch.tensor([[[0.0, math.log(3)], [5.0, 5.0]]])
    assert log_sum_squares(logits, torch.tensor([[-100, 0]])).item() == pytest.approx(math.log(1 / 16 + 9 / 16))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_values_and_gradient_are_those_of_a_whole_softmax(dtype):
    torch.manual_seed(0)
    logits = torch.randn(3, 7, 11, dtype=dtype, requires_grad=True)
    labels = torch.randint(0, 11, (3, 7)).masked_fill_(torch.rand(3, 7) < 0.4, -100)
    weights = torch.randn(3, 6)
    found = token_logprobs(logits, labels)
    (gradient,) = torch.autograd.grad((found * weights).sum(), logits)
    whole = logits.float().log_softmax(-1)[:, :-1].gather(2, labels[:, 1:, None].clamp(min=0))[:, :, 0]
    whole = whole * (labels[:, 1:] != -100)
    (expected,) = torch.autograd.grad((whole * weights).sum(), logits)
    torch.testing.assert_close(found, whole)
    torch.testing.assert_close(gradient, expected)


def test_rows_without_a_label_have_zeros_and_no_gradient():
    logits = torch.randn(1, 3, 5, requires_grad=True)
    found = token_logprobs(logits, torch.full((1, 3), -100))
    found.sum().backward()
    assert found.tolist() == [[0.0, 0.0]]
    assert logits.grad.abs().sum().item() == 0
