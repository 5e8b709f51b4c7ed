"""Trainings of a part of the model, and with noise: what is trained, and that resuming changes nothing."""

import re

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from safetensors.torch import load_file  # noqa: E402
from torch import nn  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from ftl.config.trained import TrainedSection  # noqa: E402
from ftl.errors import ConfigError  # noqa: E402
from ftl_runtime.models.noise import add_noise  # noqa: E402
from ftl_runtime.models.partial import freeze_except  # noqa: E402
from ftl_runtime.models.spectrum import rank_weights, signal_to_noise  # noqa: E402
from ftl_runtime.train.lisa import Lisa  # noqa: E402

ENDS = {"model.embed_tokens.weight", "lm_head.weight"}


@pytest.fixture
def model(weights):
    return AutoModelForCausalLM.from_pretrained(weights)


def trained(model) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["^lm_head.weight$", "model.embed_tokens"], ENDS),
        (
            [r"model.layers.[1].mlp.(up|down)_proj"],
            {f"model.layers.1.mlp.{part}_proj.weight" for part in ("up", "down")},
        ),
        (["^lm_head.weight$[:10]"], {"lm_head.weight"}),
    ],
    ids=["names", "classes of characters", "rows"],
)
def test_weights_that_no_pattern_names_are_frozen(model, patterns, expected):
    freeze_except(model, patterns)
    assert trained(model) == expected


@pytest.mark.parametrize(
    ("patterns", "rows"),
    [(["^lm_head.weight$[:10]"], range(10)), (["lm_head.weight[300:]", "lm_head.weight[7]"], [7, 300, 301, 302, 303])],
)
def test_other_rows_have_no_gradient(model, patterns, rows):
    freeze_except(model, patterns)
    ids = torch.arange(40).reshape(2, 20)
    model(input_ids=ids, labels=ids).loss.backward()
    moved = [row for row, gradient in enumerate(model.lm_head.weight.grad) if gradient.abs().sum() > 0]
    assert moved == list(rows)


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("model.layer.0", "unfrozen_parameters: model.layer.0: no weight is named so; model.layers"),
        ("model.(", "unfrozen_parameters: model.(: is no regular expression"),
    ],
)
def test_pattern_that_says_nothing_is_refused(model, pattern, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        freeze_except(model, [pattern])


def test_signal_to_noise_by_hand():
    """Quartiles 2 and 4 of 1, 2, 3, 4, 8: the bound is 2 / 1.349 * 2 = 2.97, so (8 + 4 + 3) / (2 + 1) / 8."""
    assert signal_to_noise(torch.diag(torch.tensor([3.0, 8.0, 1.0, 4.0, 2.0]))) == pytest.approx(0.625)


def test_matrices_with_the_most_signal_of_each_kind_are_chosen():
    class Block(nn.Module):
        def __init__(self, strength):
            super().__init__()
            noise = torch.randn(40, 40, generator=torch.Generator().manual_seed(int(strength)))
            self.up = nn.Linear(40, 40)
            self.down = nn.Linear(40, 40)
            self.up.weight.data = noise + strength
            self.down.weight.data = noise - strength * torch.eye(40) + 9

    model = nn.Module()
    model.layers = nn.ModuleList([Block(strength) for strength in (0.0, 3.0, 1.0, 2.0)])
    chosen = rank_weights(model, 0.5, device=torch.device("cpu"))
    ratios = {name: signal_to_noise(weight) for name, weight in model.named_parameters() if weight.ndim == 2}
    for kind in ("up", "down"):
        ranked = sorted((name for name in ratios if f".{kind}." in name), key=ratios.__getitem__)
        assert {name for name in chosen if f".{kind}." in name} == set(ranked[2:])


def test_noise_is_bounded_and_for_training_alone():
    """alpha / sqrt(T d) = 6 / sqrt(9 * 4) = 1; laid end to end, 9 tokens are three rows of 3, and it is sqrt(3)."""
    for rows_in_one, most in ((1, 1.0), (3, 3**0.5)):
        embeddings = nn.Embedding(10, 4)
        plain = embeddings(torch.arange(9)[None])
        add_noise(embeddings, 6, rows_in_one=rows_in_one)
        torch.manual_seed(0)
        noise = embeddings(torch.arange(9)[None]) - plain
        assert 0.8 * most < float(noise.detach().abs().max()) <= most
        with torch.no_grad():
            assert torch.equal(embeddings(torch.arange(9)[None]), plain)
        assert torch.equal(embeddings.eval()(torch.arange(9)[None]), plain)


def test_lisa_draws_layers_by_the_period_of_the_step(model):
    model.model.layers.extend([nn.Linear(2, 2) for _ in range(6)])
    lisa = Lisa(model, TrainedSection(lisa_num_layers=3, lisa_interval_steps=5), seed=1)
    draws = [lisa.drawn(step) for step in range(100)]
    assert all(len(set(draw)) == 3 for draw in draws)
    assert all(draws[step] == draws[step // 5 * 5] for step in range(100))
    assert {number for draw in draws for number in draw} == set(range(8))


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        ({"lisa_num_layers": 3}, "lisa_n_layers: 3: the model has 2 layers"),
        ({"lisa_num_layers": 1, "lisa_layers": "transformer.h"}, "lisa_layers_attribute: transformer.h: "),
        ({"lisa_num_layers": 1, "lisa_layers": "model.norm"}, "is a LlamaRMSNorm, not a list of layers"),
    ],
)
def test_layers_that_are_not_there_are_told(model, section, sentence):
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        Lisa(model, TrainedSection(**section), seed=1)


@pytest.mark.parametrize(
    ("section", "moved"),
    [
        ({"noise_alpha": 5.0}, None),
        ({"lisa_num_layers": 1, "lisa_interval_steps": 3}, None),
        ({"spectrum_share": 0.5}, 2 + 7),
        ({"parameters": ["^lm_head.weight$[:100]"]}, 1),
    ],
    ids=["neftune", "lisa", "spectrum", "rows"],
)
def test_stopped_run_equals_straight_run(make_attempt, weights, section, moved):
    changes = {f"trained__{name}": value for name, value in section.items()}
    straight, stopped = (make_attempt(name, model=weights, **changes) for name in ("straight", "stopped"))
    straight.train()
    for step in (5, 6):  # amid a period and at its end
        stopped.train(stop_at=step)
    stopped.train()
    assert stopped.losses() == straight.losses()
    one, other = (load_file(run.run / "output" / "model.safetensors") for run in (straight, stopped))
    assert all(torch.equal(one[name], other[name]) for name in one)
    base = load_file(weights / "model.safetensors")
    if moved is not None:
        assert sum(not torch.equal(one[name], base[name]) for name in one) == moved


def test_noise_changes_the_losses_of_training_alone(make_attempt, weights):
    plain, noisy = make_attempt("plain", model=weights), make_attempt("noisy", model=weights, trained__noise_alpha=5.0)
    plain.train()
    noisy.train()
    assert noisy.losses()[1] != plain.losses()[1]
    first = [run.events("eval")[0]["data"]["loss"] for run in (plain, noisy)]
    assert first[0] == first[1]
