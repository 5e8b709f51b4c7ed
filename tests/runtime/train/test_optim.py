"""Every optimizer, step by step: what it is built from, what its steps are, and that its state holds all of it."""

import io
import math
from importlib.util import find_spec

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from ftl.config.optim import OptimSection  # noqa: E402
from ftl.config.rates import RatesSection  # noqa: E402
from ftl.errors import ConfigError  # noqa: E402
from ftl_runtime.context import Device  # noqa: E402
from ftl_runtime.train.adopt import Adopt  # noqa: E402
from ftl_runtime.train.averaging import averaged_weights, restore_trained  # noqa: E402
from ftl_runtime.train.grokfast import Grokfast  # noqa: E402
from ftl_runtime.train.optim import OPTIMIZERS, make_optimizer, optimizer_problems  # noqa: E402

CPU = Device("cpu", has_bf16=True, rank=0, num_ranks=1)
RANK_2 = {"rank": 2, "update_proj_gap": 2}
OPTIONS = {"galore_adamw": RANK_2, "galore_adafactor": RANK_2, "apollo_adamw": RANK_2}


class Tiny(torch.nn.Module):
    """An embedding, a matrix with a bias, and a head."""

    def __init__(self, width=3):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.layer = torch.nn.Embedding(4, width), torch.nn.Linear(width, width)
        self.head = torch.nn.Linear(width, 4)

    def get_input_embeddings(self):
        return self.embed

    def get_output_embeddings(self):
        return self.head

    def backward(self, seed=0):
        """Gradients of some loss, a different one for each seed."""
        ids = torch.randint(4, (6,), generator=torch.Generator().manual_seed(seed))
        logits = self.head(torch.tanh(self.layer(self.embed(ids))))
        torch.nn.functional.cross_entropy(logits, (ids + seed) % 4).backward()


def optimizer_for(model, name, **optim):
    section = OptimSection(learning_rate=0.1, optimizer=name, **optim)
    return make_optimizer(model, section, RatesSection(), warmup_steps=0)


def take_steps(model, optimizer, steps):
    for step in steps:
        for part in (optimizer, getattr(optimizer, "optimizer", None)):  # as accelerate does
            getattr(part, "train", lambda: None)()
        model.backward(step)
        optimizer.step()
        optimizer.zero_grad()


def through_a_file(model, optimizer):
    """The states of both as a checkpoint brings them back."""
    with averaged_weights(optimizer):
        file = io.BytesIO()
        torch.save((model.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def names_here():
    return [
        name
        for name, recipe in OPTIMIZERS.items()
        if recipe.on_cpu and (recipe.module is None or find_spec(recipe.module))
    ]


@pytest.mark.parametrize(
    ("name", "optim"),
    [
        *((name, {"weight_decay": 0.1}) for name in names_here()),
        *((name, {"grokfast_alpha": 0.5}) for name in ("muon", "schedule_free_adamw") if name in names_here()),
    ],
)
def test_state_from_a_file_goes_on_bit_for_bit(name, optim):
    """4096 weights in a matrix are the fewest whose states get 8 bits."""
    optim = {**optim, "optimizer_options": OPTIONS.get(name, {})}
    straight = Tiny(64)
    take_steps(straight, optimizer_for(straight, name, **optim), range(6))
    stopped, resumed = Tiny(64), Tiny(64)
    optimizer = optimizer_for(stopped, name, **optim)
    take_steps(stopped, optimizer, range(3))
    optimizer, (weights, state) = optimizer_for(resumed, name, **optim), through_a_file(stopped, optimizer)
    resumed.load_state_dict(weights)
    optimizer.load_state_dict(state)
    restore_trained(optimizer)
    take_steps(resumed, optimizer, range(3, 6))
    for ended, expected, begun in zip(resumed.parameters(), straight.parameters(), Tiny(64).parameters(), strict=True):
        assert torch.equal(ended, expected)
        assert not torch.equal(ended, begun)


def test_missing_package_and_missing_gpu_are_one_sentence_each(monkeypatch):
    monkeypatch.setattr("ftl_runtime.train.optim.find_spec", lambda name: None)
    assert optimizer_problems(OptimSection(learning_rate=1, optimizer="apollo_adamw"), CPU) == [
        "optimizer: apollo_adamw: needs the package apollo-torch, which is not installed here; "
        "install it, or use adamw_torch_fused"
    ]
    assert optimizer_problems(OptimSection(learning_rate=1, optimizer="galore_adamw_8bit"), CPU) == [
        "optimizer: galore_adamw_8bit: runs on NVIDIA GPUs only; without one use adamw_torch_fused"
    ]


def linear(weight=1.0):
    """A layer of one weight."""
    layer = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(layer.weight, weight)
    return layer


def stepped(optimizer, layer, gradients):
    """The weight after each step with these gradients."""
    seen = []
    for gradient in gradients:
        layer.weight.grad = torch.tensor([[gradient]])
        optimizer.step()
        seen.append(layer.weight.item())
    return seen


def test_adopt_steps_as_written_in_the_paper():
    """v = 4 after the first gradient. Step 1: m = 0.1 * clip(2 / 2, 1) = 0.1, v = 4. Step 2: m = 0.09 + 0.1 *
    clip(-6 / 2, 2 ** 0.25), so the clip holds."""
    layer = linear()
    optimizer = Adopt(layer.parameters(), lr=0.5, betas=(0.9, 0.5), eps=1e-6)
    first = 1 - 0.5 * 0.1
    second = first - 0.5 * (0.09 - 0.1 * 2**0.25)
    assert stepped(optimizer, layer, [2.0, 2.0, -6.0]) == pytest.approx([1.0, first, second], rel=1e-6)


def test_grokfast_adds_the_running_mean_to_the_gradient():
    """Means 1 and 0.5 * 1 + 0.5 * 3 = 2; gradients 1 + 2 * 1 = 3 and 3 + 2 * 2 = 7."""
    layer = linear()
    optimizer = Grokfast(torch.optim.SGD(layer.parameters(), lr=0.1), alpha=0.5, lamb=2.0)
    assert stepped(optimizer, layer, [1.0, 3.0]) == pytest.approx([0.7, 0.0], abs=1e-6)


def test_muon_moves_matrices_of_layers_orthogonally_and_the_rest_as_adam_does():
    """All singular values of a step are near 0.2 * lr * sqrt(3); the first step of Adam is lr against each sign."""
    model = Tiny()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    model.backward()
    optimizer_for(model, "muon", max_grad_norm=0).step()
    moved = {name: value.detach() - before[name] for name, value in model.named_parameters()}
    sizes = torch.linalg.svdvals(moved["layer.weight"]) / (0.2 * 0.1 * math.sqrt(3))
    assert sizes.min() > 0.6 and sizes.max() < 1.3
    for name in ("embed.weight", "layer.bias", "head.bias"):
        assert moved[name] == pytest.approx(-0.1 * dict(model.named_parameters())[name].grad.sign(), rel=1e-3)


def test_a_rate_set_from_outside_reaches_both_optimizers_of_muon():
    model = Tiny()
    optimizer = optimizer_for(model, "muon")
    optimizer.load_state_dict(optimizer.state_dict())
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    model.backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


@pytest.mark.parametrize("optim", [{}, {"grokfast_alpha": 0.5}], ids=str)
def test_states_of_parameters_can_be_dropped_through_wrappers(optim):
    """What LISA does with layers that it puts away: the bias begins anew, and its first step of Adam is lr."""
    model = Tiny()
    optimizer = optimizer_for(model, "muon", **optim)
    take_steps(model, optimizer, range(2))
    state = optimizer.state_dict()
    optimizer.load_state_dict(state)
    for parameter in (model.layer.weight, model.layer.bias):
        assert parameter in optimizer.state
        optimizer.state.pop(parameter, None)
        assert parameter not in optimizer.state
    before = model.layer.bias.detach().clone()
    model.backward(2)
    optimizer.step()
    assert (model.layer.bias - before).detach().abs() == pytest.approx(torch.full((3,), 0.1), rel=1e-3)


@pytest.mark.skipif(not find_spec("galore_torch"), reason="the package galore-torch is not installed")
@pytest.mark.parametrize("wanted", [["layer", "nope"], "lay"], ids=str)
def test_projection_of_layers_that_are_not_there_is_refused(wanted):
    with pytest.raises(ConfigError, match="no linear layer is named so"):
        optimizer_for(Tiny(), "galore_adamw", low_rank_modules=wanted)


@pytest.mark.skipif(not find_spec("galore_torch"), reason="the package galore-torch is not installed")
def test_only_the_chosen_layers_are_projected():
    optimizer = optimizer_for(Tiny(), "galore_adamw", low_rank_modules=["layer"], optimizer_options={"rank": 2})
    projected = [tuple(p.shape) for group in optimizer.param_groups if "rank" in group for p in group["params"]]
    assert projected == [(3, 3)]


def test_wrong_value_of_an_option_is_told_in_the_words_of_the_library():
    with pytest.raises(ConfigError, match="optimizer: sgd: Nesterov momentum requires a momentum"):
        optimizer_for(Tiny(), "sgd", optimizer_options={"nesterov": True})
