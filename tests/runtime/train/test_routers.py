"""The routers' loss in a model whose routers know nothing: 4 experts are then as likely, and 2 of them are chosen.

Four times the sum over experts of (share of tokens) x (probability), which is 4 x (2 x 1/4) = 2. arXiv 2101.03961.
"""

import shutil

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from peft import LoraConfig, get_peft_model  # noqa: E402
from transformers import AutoModelForCausalLM, MixtralConfig  # noqa: E402

from ftl_runtime.train.routers import RouterLoss  # noqa: E402

SIZES = {
    "vocab_size": 304,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}
IDS = torch.arange(24).reshape(2, 12)


def model_of(**changes):
    model = AutoModelForCausalLM.from_config(MixtralConfig(**SIZES, **changes))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".gate." in name:
                weight.zero_()
    return model.train()


def test_loss_of_even_routers_is_twice_the_factor_with_an_adapter_too():
    for wrap in (lambda model: model, lambda model: get_peft_model(model, LoraConfig(target_modules=["q_proj"]))):
        model = wrap(model_of(output_router_logits=True, router_aux_loss_coef=0.02))
        routers = RouterLoss.of(model)
        model(IDS)
        assert float(routers.take()) == pytest.approx(0.04)
        assert routers.take() == 0.0


def test_evaluation_and_reference_passes_leave_it_alone():
    model = model_of(output_router_logits=True, router_aux_loss_coef=0.02)
    routers = RouterLoss.of(model)
    with torch.no_grad():
        model(IDS)
    model.eval()(IDS)
    assert routers.take() == 0.0


def test_config_that_does_not_ask_for_it_has_none():
    assert RouterLoss.of(model_of(router_aux_loss_coef=0.02)) is None


def test_training_adds_it_once_a_step_and_evaluation_does_not(make_attempt, base, tmp_path):
    """Two micro-batches a step. Drawn routers are almost even, so it is about 2 x 1000."""
    shutil.copytree(base, tmp_path / "experts")
    MixtralConfig(**SIZES, output_router_logits=True, router_aux_loss_coef=1000.0).save_pretrained(tmp_path / "experts")
    attempt = make_attempt(model=tmp_path / "experts", optim__num_epochs=1)
    attempt.config["model"]["reinit_weights"] = True
    assert attempt.go() == 0, attempt.output
    assert attempt.losses()[1] == pytest.approx(2000, rel=0.02)
    assert attempt.events("eval")[0]["data"]["loss"] < 7
