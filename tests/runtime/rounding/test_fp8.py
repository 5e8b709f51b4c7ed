"""Products in fp8, emulated: close to those in fp32, on the layers they are meant for."""

import copy

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchao")
pytestmark = pytest.mark.torch

from transformers import AutoModelForCausalLM, LlamaConfig  # noqa: E402

from ftl.errors import ConfigError  # noqa: E402
from ftl_runtime.rounding.fp8 import compute_in_fp8  # noqa: E402

IDS = torch.arange(2, 34).reshape(2, 16)


def gradients(model) -> dict[str, torch.Tensor]:
    model(IDS, labels=IDS).loss.backward()
    return {name: parameter.grad.flatten() for name, parameter in model.named_parameters()}


def test_layers_but_the_head_multiply_in_fp8_and_stay_close(weights):
    """A value in fp8 has 3 bits behind the point, so it is off by 1/16 at most; errors of a sum have either sign."""
    plain = AutoModelForCausalLM.from_pretrained(weights)
    rounded = copy.deepcopy(plain)
    assert compute_in_fp8(rounded, emulate=True) == 14  # q k v o gate up down of two layers
    with torch.no_grad():
        expected, found = plain(IDS).logits, rounded(IDS).logits
    assert 0 < (found - expected).norm() / expected.norm() < 1 / 16
    ours, theirs = gradients(rounded), gradients(plain)
    assert all(torch.cosine_similarity(ours[name], theirs[name], 0) > 0.98 for name in theirs)
    assert type(rounded.lm_head) is torch.nn.Linear
    assert list(rounded.state_dict()) == list(plain.state_dict())


def test_model_without_a_layer_that_fits_is_refused():
    sizes = {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=8, num_hidden_layers=1, head_dim=12, **sizes)
    with pytest.raises(ConfigError, match="no linear layer of this model has sides that are multiples of 16"):
        compute_in_fp8(AutoModelForCausalLM.from_config(config))
