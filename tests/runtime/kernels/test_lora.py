"""LoRA in one piece, against peft's own layers."""

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from peft import LoraConfig, get_peft_model  # noqa: E402
from torch import nn  # noqa: E402

from ftl_runtime.kernels import lora  # noqa: E402


class Pair(nn.Module):
    """Two linear layers that share what is between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(12, 8)
        self.second = nn.Linear(8, 5, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def adapted(**options) -> nn.Module:
    torch.manual_seed(0)
    model = get_peft_model(Pair(), LoraConfig(r=3, lora_alpha=6, target_modules=["first", "second"], **options))
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # 0 at the start, and so would be every gradient of A
            nn.init.normal_(weight)
    return model


def gradients(model: nn.Module, x: torch.Tensor, *, bf16: bool = False) -> tuple[torch.Tensor, ...]:
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        y = model(x)
    y.float().square().sum().backward()
    return y.float(), x.grad, *(weight.grad for weight in model.parameters() if weight.requires_grad)


X = torch.randn(4, 7, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("bf16", "tolerance"), [(False, 1e-5), (True, 4e-2)])
def test_outputs_and_gradients_are_those_of_peft(bf16, tolerance):
    fused = adapted()
    assert lora.fuse(fused) == 2
    for ours, theirs in zip(gradients(fused, X, bf16=bf16), gradients(adapted(), X, bf16=bf16), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance * float(theirs.abs().max()))


def test_dropout_scales_what_it_keeps_and_its_gradient_is_of_the_same_choice():
    """In fp64: the gradient is checked against differences of the function itself, drawn with one seed."""
    generator = torch.Generator().manual_seed(2)
    shapes = [(6, 4), (3, 4), (2, 4), (3, 2)]
    x, weight, a, b = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)

    def function(x, a, b):
        torch.manual_seed(5)
        return lora.lora_linear(x, weight, None, a, b, scaling=2.0, dropout=0.5)

    inputs = tuple(part.requires_grad_() for part in (x, a, b))
    assert torch.autograd.gradcheck(function, inputs)
    with torch.no_grad():
        update = function(*inputs) - x @ weight.t()
    torch.manual_seed(5)
    kept = torch.empty(6, 4, dtype=torch.bool).bernoulli_(0.5)
    torch.testing.assert_close(update, 2.0 * (x * kept / 0.5) @ a.t() @ b.t())


def test_adapter_that_is_off_adds_nothing():
    model = adapted()
    lora.fuse(model)
    with model.disable_adapter():
        off = model(X)
    assert not torch.equal(off, model(X))
    torch.manual_seed(0)
    assert torch.equal(off, Pair()(X))


def test_evaluation_drops_nothing():
    model = adapted(lora_dropout=0.5)
    lora.fuse(model)
    model.eval()
    assert torch.equal(model(X), model(X))
    model.train()
    assert not torch.equal(model(X), model(X))


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}], ids=["dora", "bias"])
def test_variants_are_left_to_peft(options):
    assert lora.fuse(adapted(**options)) == 0
