"""The kernels on CUDA, against the same computed plainly in fp32 or fp64."""

from itertools import accumulate, pairwise

import pytest

torch = pytest.importorskip("torch")
pytestmark = [pytest.mark.torch, pytest.mark.gpu]

from torch.nn.functional import cross_entropy, linear, scaled_dot_product_attention  # noqa: E402

from ftl_runtime.kernels import head, varlen  # noqa: E402

LENGTHS = (700, 13, 257, 1, 1077)
STARTS = [0, *accumulate(LENGTHS)]


@pytest.fixture
def deterministic():
    was = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(was)


def drawn(heads: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    generator = torch.Generator("cuda").manual_seed(heads)
    values = torch.randn(1, heads, STARTS[-1], 64, generator=generator, device="cuda", dtype=torch.float32)
    return values.to(dtype).requires_grad_()


def attend(query, key, value, window):
    starts = torch.tensor(STARTS, dtype=torch.int32, device="cuda")
    keys = {"sliding_window": window, "cu_seq_lens_q": starts, "max_length_q": max(LENGTHS)}
    return varlen.varlen_attention(torch.nn.Identity(), query, key, value, None, **keys)[0]


def plainly(query, key, value, window):
    """[1, T, H, D], one document at a time, in fp32."""
    outputs = []
    for start, stop in pairwise(STARTS):
        q, k, v = (part[:, :, start:stop].float() for part in (query, key, value))
        mask = torch.ones(stop - start, stop - start, dtype=torch.bool, device="cuda").tril()
        if window is not None:
            mask = mask.triu(-(window - 1))
        outputs.append(scaled_dot_product_attention(q, k, v, mask, enable_gqa=True))
    return torch.cat(outputs, 2).transpose(1, 2)


@pytest.mark.parametrize("window", [None, 64])
def test_attention_and_its_gradients_are_those_of_each_document_alone(window, deterministic):
    ours, theirs = ([drawn(8), drawn(2), drawn(2)] for _ in range(2))
    weight = torch.randn(1, STARTS[-1], 8, 64, device="cuda")
    out, expected = attend(*ours, window), plainly(*theirs, window)
    torch.testing.assert_close(out.float(), expected, rtol=2e-2, atol=2e-2)
    (out.float() * weight).sum().backward()
    (expected * weight).sum().backward()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad.float(), other.grad.float(), rtol=5e-2, atol=5e-2)


def test_gradients_are_the_same_bit_for_bit_every_time(deterministic):
    grads = []
    for _ in range(5):
        query, key, value = drawn(8), drawn(2), drawn(2)
        attend(query, key, value, None).float().square().sum().backward()
        grads.append((query.grad, key.grad, value.grad))
    assert all(torch.equal(a, b) for other in grads[1:] for a, b in zip(grads[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("vocabulary", [1000, 50_257])
def test_head_loss_and_gradients_are_those_of_fp64(dtype, vocabulary):
    generator = torch.Generator("cuda").manual_seed(0)
    hidden = torch.randn(300, 128, generator=generator, device="cuda").to(dtype)
    weight = (torch.randn(vocabulary, 128, generator=generator, device="cuda") * 0.1).to(dtype)
    rows = torch.arange(0, 300, 3, device="cuda")
    targets = (rows * 31) % vocabulary
    ours = [hidden.clone().requires_grad_(), weight.clone().requires_grad_()]
    exact = [hidden.double().requires_grad_(), weight.double().requires_grad_()]
    loss = head.summed_cross_entropy(*ours, None, rows, targets)
    expected = cross_entropy(linear(*exact)[rows], targets, reduction="sum")
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5 if dtype == torch.float32 else 2e-3)
    loss.backward()
    expected.backward()
    for one, other in zip(ours, exact, strict=True):
        error = (one.grad.double() - other.grad).norm() / other.grad.norm()
        assert error < (1e-5 if dtype == torch.float32 else 2e-2)
