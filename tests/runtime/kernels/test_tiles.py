"""MLPs in tiles, against the same MLPs whole, in fp64."""

import pytest
import torch
from transformers import GPTNeoXConfig, LlamaConfig, OPTConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from ftl_runtime.kernels.tiles import tile_mlps

pytestmark = pytest.mark.torch

TINY = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
IDS = torch.arange(37)[None] * 7 % 40


def model_of(config):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).double()


def loss_and_gradients(model):
    loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    return loss.detach(), *(weight.grad for weight in model.parameters())


@pytest.mark.parametrize("num_tiles", [None, 5, 100], ids=["by width", "uneven", "more than tokens"])
@pytest.mark.parametrize("config", [LlamaConfig(**TINY), GPTNeoXConfig(**TINY)], ids=["llama", "gpt_neox"])
def test_loss_and_gradients_are_those_of_whole_mlps(config, num_tiles):
    tiled = model_of(config)
    assert tile_mlps(tiled, num_tiles) == 2
    for ours, theirs in zip(loss_and_gradients(tiled), loss_and_gradients(model_of(config)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_nothing_between_the_projections_is_kept_for_the_way_back():
    """Of 36 tokens in 4 tiles the gate sees 9 at a time, a second time in the backward pass."""
    model = model_of(LlamaConfig(**TINY))
    tile_mlps(model, 4)
    seen: list[int] = []
    for layer in model.model.layers:
        layer.mlp.gate_proj.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[-2]))
    loss = model(input_ids=IDS[:, :36], labels=IDS[:, :36]).loss
    assert seen == [9] * 8
    loss.backward()
    assert seen == [9] * 16


def test_layers_without_such_an_mlp_are_left_alone():
    assert tile_mlps(model_of(OPTConfig(ffn_dim=32, word_embed_proj_dim=16, **TINY)), None) == 0
