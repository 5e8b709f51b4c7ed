"""Recomputed or kept, here or in main memory: the same numbers."""

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

from ftl.config.train import TrainConfig  # noqa: E402
from ftl.errors import ConfigError  # noqa: E402
from ftl_runtime.models import recompute as module  # noqa: E402
from ftl_runtime.models.footprint import Footprint  # noqa: E402
from ftl_runtime.models.recompute import NOTHING, Recompute, asked_for, planned, recompute  # noqa: E402

GIB = 2**30
ALL = Recompute(None)
OFFLOADED = Recompute(None, offloads=True)


def config(fsdp=None, deepspeed=None, **precision):
    return TrainConfig.model_validate(
        {
            "model": {"base": "b"},
            "data": {"datasets": [{"path": "p", "type": "completion"}]},
            "optim": {"learning_rate": 1e-3},
            "precision": precision,
            "parallel": {"fsdp": fsdp, "deepspeed": deepspeed},
        }
    )


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, None),
        ({"gradient_checkpointing": False}, NOTHING),
        ({"gradient_checkpointing": True}, ALL),
        ({"activation_offloading": True}, OFFLOADED),
        ({"gradient_checkpointing": True, "activation_offloading": True}, OFFLOADED),
        ({"fsdp": {}}, NOTHING),
        ({"fsdp": {"activation_checkpointing": True}}, ALL),
        ({"deepspeed": {"zero_optimization": {"stage": 3}}}, NOTHING),
    ],
    ids=str,
)
def test_config_decides_and_else_the_planner(keys, expected):
    assert asked_for(config(**keys)) == expected


@pytest.mark.parametrize(("free", "expected"), [(420, NOTHING), (300, Recompute(2)), (100, OFFLOADED)])
def test_planner_goes_from_nothing_to_main_memory(free, expected):
    footprint = Footprint(states=0, head=0, kept_layer=100, layer_input=10, num_layers=4)
    assert planned(footprint, GIB + free) == expected


@pytest.mark.parametrize(
    ("what", "told"),
    [(NOTHING, "none"), (Recompute(3), "3 layers"), (ALL, "all layers")],
    ids=str,
)
def test_choice_is_told_in_words(what, told):
    assert str(what) == told


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"vocab_size": 50, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**shape, **heads, attention_dropout=0.3)).train()


def _loss_and_gradients(what: Recompute) -> list[torch.Tensor]:
    model = llama()
    if what != NOTHING:
        recompute(model, what)
    ids_BT = torch.arange(24).reshape(2, 12)
    loss = model(input_ids=ids_BT, labels=ids_BT, use_cache=False).loss
    loss.backward()
    return [loss.detach(), *(part.grad for part in model.parameters())]


def test_loss_and_gradients_with_dropout_are_the_same_bit_for_bit(monkeypatch):
    moved = []
    monkeypatch.setattr(module, "_is_moved", lambda tensor: moved.append(tensor.shape) or True)
    plain = _loss_and_gradients(NOTHING)
    for what in (Recompute(1), ALL, OFFLOADED):
        found = _loss_and_gradients(what)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, plain, strict=True)), what
    assert moved.count((2, 12, 16)) == 3  # the input of each layer, and nothing that a layer makes


def test_first_layers_recompute_and_the_others_keep():
    model = llama()
    recompute(model, Recompute(2))
    assert [layer.gradient_checkpointing for layer in model.model.layers] == [True, True, False]


def test_model_that_cannot_is_refused_with_the_key(monkeypatch):
    model = llama()
    monkeypatch.setattr(LlamaForCausalLM, "supports_gradient_checkpointing", False)
    with pytest.raises(ConfigError, match="gradient_checkpointing: this model cannot"):
        recompute(model, ALL)


def test_offloading_without_a_gpu_only_recomputes_and_says_so(make_attempt):
    shape = {"optim__max_steps": 2, "data__val_set_size": 0, "output__save_strategy": "no"}
    attempts = make_attempt("kept", **shape), make_attempt("moved", precision__activation_offloading=True, **shape)
    for attempt in attempts:
        attempt.train()
    kept, moved = attempts
    assert moved.losses() == kept.losses()
    assert any("activation_offloading: has no effect" in event["data"]["message"] for event in moved.events("warning"))
    results = [attempt.events("result")[0]["data"]["recompute"] for attempt in attempts]
    assert results == ["none", "all layers"]
