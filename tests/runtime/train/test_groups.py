"""Which parameter trains at which rate, and which decay: names and groups written by hand."""

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from peft import LoraConfig, get_peft_model  # noqa: E402
from transformers import AutoConfig, AutoModelForCausalLM  # noqa: E402

from ftl.config.optim import OptimSection  # noqa: E402
from ftl.config.rates import RatesSection  # noqa: E402
from ftl.errors import ConfigError  # noqa: E402
from ftl_runtime.train.groups import parameter_groups  # noqa: E402


@pytest.fixture
def model(base):
    return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(base))


@pytest.fixture
def lora(model):
    targets = ["q_proj", "embed_tokens"]
    return get_peft_model(model, LoraConfig(r=2, target_modules=targets, modules_to_save=["lm_head"]))


def groups(model, *, weight_decay=0.0, **rates):
    """[(rate, decay, short names)] in the order of the optimizer."""
    optim = OptimSection(learning_rate=1.0, weight_decay=weight_decay)
    found = parameter_groups(model, optim, RatesSection.model_validate(rates))
    return [(group.rate, group.weight_decay, {_short(name) for name, _ in group.parameters}) for group in found]


def _short(name):
    parts = name.removeprefix("base_model.model.").removesuffix(".weight").split(".")
    return ".".join(part for part in parts if part not in ("model", "layers", "default", "self_attn", "mlp"))


PROJECTIONS = {f"{n}.{p}_proj" for n in (0, 1) for p in ("q", "k", "v", "o", "gate", "up", "down")}
NORMS = {"norm", *(f"{n}.{p}_layernorm" for n in (0, 1) for p in ("input", "post_attention"))}
ENDS = {"embed_tokens", "lm_head"}
MATRICES_A = {"0.q_proj.lora_A", "1.q_proj.lora_A"}
MATRICES_B = {"0.q_proj.lora_B", "1.q_proj.lora_B"}
IN_EMBEDDING = {"embed_tokens.lora_embedding_A", "embed_tokens.lora_embedding_B"}
HEAD = {"lm_head.modules_to_save"}


def test_without_decay_there_is_one_group(model):
    assert groups(model) == [(1.0, 0.0, PROJECTIONS | NORMS | ENDS)]


def test_norms_do_not_decay(model):
    assert groups(model, weight_decay=0.1) == [(1.0, 0.1, PROJECTIONS | ENDS), (1.0, 0.0, NORMS)]


def test_frozen_parameters_are_in_no_group(model):
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "norm" not in name
    assert groups(model, weight_decay=0.1) == [(1.0, 0.1, PROJECTIONS | ENDS)]


def test_loraplus_speeds_up_the_b_matrices(lora):
    assert groups(lora, loraplus_ratio=16) == [
        (1.0, 0.0, MATRICES_A | HEAD),
        (1e-6, 0.0, IN_EMBEDDING),
        (16.0, 0.0, MATRICES_B),
    ]


def test_loraplus_has_a_rate_for_adapters_on_embeddings(lora):
    rates = {
        names[0]: rate
        for rate, _, found in groups(lora, loraplus_ratio=2, loraplus_embedding_rate=0.5)
        if (names := sorted(found))
    }
    assert rates == {"0.q_proj.lora_A": 1.0, "embed_tokens.lora_embedding_A": 0.5, "0.q_proj.lora_B": 2.0}


def test_embeddings_and_head_have_their_own_rate(model):
    assert groups(model, embedding_rate=0.25) == [(1.0, 0.0, PROJECTIONS | NORMS), (0.25, 0.0, ENDS)]
    assert groups(model, embedding_rate_scale=0.5)[1] == (0.5, 0.0, ENDS)


def test_embedding_rate_takes_adapters_on_embeddings_and_saved_heads(lora):
    assert groups(lora, embedding_rate=0.25) == [(1.0, 0.0, MATRICES_A | MATRICES_B), (0.25, 0.0, IN_EMBEDDING | HEAD)]


def test_first_group_of_lr_groups_wins_over_later_ones_and_over_other_keys(lora):
    own = [{"name": "a", "modules": ["layers.0.", "lm_head"], "lr": 7}, {"name": "b", "modules": ["q_proj"], "lr": 8}]
    assert groups(lora, groups=own, loraplus_ratio=16, embedding_rate=0.25) == [
        (0.25, 0.0, IN_EMBEDDING),
        (7.0, 0.0, {"0.q_proj.lora_A", "0.q_proj.lora_B"} | HEAD),
        (8.0, 0.0, {"1.q_proj.lora_A", "1.q_proj.lora_B"}),
    ]


@pytest.mark.parametrize(
    ("rates", "told"),
    [
        ({"groups": [{"name": "a", "modules": ["q_proj", "nope"], "lr": 1}]}, "lr_groups.0.modules: nope: no trained"),
        ({"embedding_rate": 0.1}, "embedding_lr: the embeddings: no trained"),
        ({"loraplus_ratio": 2}, "loraplus_lr_ratio: the B matrices of LoRA: no trained"),
    ],
    ids=str,
)
def test_rate_for_parameters_that_are_not_trained_is_refused(model, rates, told):
    for name, parameter in model.named_parameters():
        parameter.requires_grad = "proj" in name
    with pytest.raises(ConfigError, match=told):
        groups(model, **rates)
