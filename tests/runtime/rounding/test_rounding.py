"""Rounded weights: what training sees is what `ftl quantize` leaves, on time, resumed bit for bit, loaded again."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchao")
pytestmark = pytest.mark.torch

from torch import nn  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

from ftl.config.rounding import Qat, Scheme  # noqa: E402
from ftl.errors import ConfigError  # noqa: E402
from ftl_runtime.rounding import qat  # noqa: E402

IDS = torch.arange(2, 34).reshape(2, 16)


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS, use_cache=False).logits.float()


def quantize(attempt_below, tmp_path: Path, base: Path, name: str, **scheme) -> Path:
    attempt = attempt_below(tmp_path, name, model=base, rounding__quantization=scheme)
    attempt.spec = {"task": "quantize"}
    attempt.train()
    return attempt.run / "output"


SCHEMES = {
    "int8": {"weight_dtype": "int8"},
    "int4": {"weight_dtype": "int4", "group_size": 16},
    "int8 with activations": {"weight_dtype": "int8", "activation_dtype": "int8"},
    "int4 with activations and embeddings": {
        "weight_dtype": "int4",
        "activation_dtype": "int8",
        "quantize_embedding": True,
    },
    "fp8": {"weight_dtype": "fp8"},
}


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_training_sees_what_is_left_of_the_model_and_transformers_loads(scheme, weights, attempt_below, tmp_path):
    seen = AutoModelForCausalLM.from_pretrained(weights)
    whole = logits(seen)
    qat.prepare(seen, Qat(**scheme))
    output = quantize(attempt_below, tmp_path, weights, "q", **scheme)
    left = AutoModelForCausalLM.from_pretrained(output, device_map={"": "cpu"})
    assert torch.allclose(logits(left), logits(seen), atol=1e-5)
    assert not torch.equal(logits(left), whole)
    assert type(left.lm_head.weight) is nn.Parameter
    assert json.loads((output / "config.json").read_text())["quantization_config"]["quant_method"] == "torchao"


# Half a step of a group's scale at most: weights are drawn with a deviation of 0.02, so of 32 of them the largest is
# about 0.05, and the step of int8 0.05 / 127. Relative to the largest weight: 1 / 254, of int4 1 / 14, of fp8, with 3
# bits behind the point, 1 / 16 of each weight.
BOUNDS = {"int8": 1 / 254, "int4": 1 / 14, "fp8": 1 / 16}


@pytest.mark.parametrize("weight_dtype", BOUNDS)
def test_no_weight_is_further_from_its_own_than_half_a_step(weight_dtype, weights):
    from torchao.quantization import quantize_

    from ftl_runtime.rounding.scheme import of_layers

    torch.manual_seed(0)
    layer = nn.Linear(64, 8, bias=False)
    before = layer.weight.detach().clone()
    quantize_(layer, of_layers(Scheme(weight_dtype=weight_dtype, group_size=32)))
    groups = before.reshape(8, 2, 32)
    steps = groups.abs() if weight_dtype == "fp8" else groups.abs().amax(-1, keepdim=True)
    error = (layer.weight.dequantize() - before).reshape(8, 2, 32).abs()
    assert (error <= steps * BOUNDS[weight_dtype] * 1.02 + 1e-4).all()  # int4 has 16 values, one more below zero
    assert error.max() > 0


def test_rounding_begins_on_time_and_resumes_bit_for_bit(weights, attempt_below, tmp_path):
    """Losses are those without rounding for 3 steps, others afterwards; killed at 5 they go on as uninterrupted."""

    def trained(name: str, scheme: dict | None, *, stop_at: int | None = None):
        attempt = attempt_below(tmp_path, name, model=weights, optim__max_steps=8, rounding__qat=scheme)
        attempt.train(stop_at=stop_at)
        return attempt

    late = {"weight_dtype": "int4", "activation_dtype": "int8", "group_size": 16, "fake_quant_after_n_steps": 3}
    plain, whole = trained("plain", None), trained("whole", late)
    at_once = trained("at once", {**late, "fake_quant_after_n_steps": 0})
    same = [step for step, loss in whole.losses().items() if loss == plain.losses()[step]]
    assert same == [1, 2, 3]
    assert at_once.losses()[1] != plain.losses()[1]
    cut = trained("cut", late, stop_at=5)
    cut.train()
    assert cut.losses() == whole.losses()
    names = ("run", "output", "model.safetensors")
    assert cut.directory.joinpath(*names).read_bytes() == whole.directory.joinpath(*names).read_bytes()


def test_groups_that_do_not_fit_name_the_layer(weights):
    model = AutoModelForCausalLM.from_pretrained(weights)
    with pytest.raises(ConfigError, match=r"qat.group_size: 48: does not divide the 32 inputs of model.layers.0"):
        qat.prepare(model, Qat(group_size=48))


def test_embeddings_that_are_the_head_are_not_rounded(weights):
    model = AutoModelForCausalLM.from_pretrained(weights)
    model.config.tie_word_embeddings = True
    with pytest.raises(ConfigError, match="are its head too"):
        qat.prepare(model, Qat(quantize_embedding=True))
