"""How many layers must recompute, by hand; and the estimate beside what a model really keeps."""

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from torch.autograd.graph import saved_tensors_hooks  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, PretrainedConfig  # noqa: E402

from ftl_runtime.models.footprint import Footprint, LayerShape, estimate, fewest_recomputed  # noqa: E402

GIB = 2**30
SHAPE = LayerShape(width=10, mlp_width=20, num_layers=4, vocab_size=100)
ADAMW = {
    "num_tokens": 1000,
    "num_trained": 5000,
    "trained_bytes": 20_000,
    "optimizer": "adamw_torch_fused",
    "compute_bytes": 2,
}
"""Weights in fp32, products in bf16."""


@pytest.mark.parametrize(
    ("changes", "part", "expected"),
    [
        ({}, "states", 60_000),  # gradients 20,000 and two moments of 20,000
        ({"num_ranks": 2}, "states", 80_000),  # and the buckets in which gradients are exchanged
        ({"optimizer": "adamw_bnb_8bit"}, "states", 30_000),
        ({"optimizer": "sgd"}, "states", 20_000),
        ({"optimizer": "paged_adamw_8bit"}, "states", 20_000),
        ({}, "kept_layer", 400_000),  # 1,000 tokens x (12 x 10 + 4 x 20) x 2 bytes
        ({"has_kernels": True}, "kept_layer", 200_000),
        ({"cast_bytes": 8000}, "kept_layer", 402_000),
        ({"num_scores": 50}, "kept_layer", 600_000),
        ({}, "layer_input", 20_000),
        ({}, "head", GIB + 20_000 + 4000),  # a chunk of logits, the gradient of its input, that of its weights
        ({"makes_logits": True}, "head", 1_000_000),  # 1,000 x 100 x (2 + 4 + 4)
    ],
    ids=str,
)
def test_bytes_are_those_of_the_sum_by_hand(changes, part, expected):
    assert getattr(estimate(SHAPE, **(ADAMW | changes)), part) == expected


# 4 layers of 100 bytes, or 10 recomputed: 400, 310, 220, 130 for 0 to 3 of them; 5 % more, and 1 GiB.
@pytest.mark.parametrize(
    ("free", "expected"), [(420, 0), (419, 1), (325, 1), (324, 2), (231, 2), (230, 3), (136, 3), (135, None)]
)
def test_no_more_layers_recompute_than_must(free, expected):
    footprint = Footprint(states=0, head=0, kept_layer=100, layer_input=10, num_layers=4)
    assert fewest_recomputed(footprint, GIB + free) == expected


def test_inputs_in_main_memory_leave_two_and_one_layer_at_work():
    footprint = Footprint(states=0, head=0, kept_layer=100, layer_input=10, num_layers=4)
    assert footprint.needed(4) == GIB + 147  # 4 x 10 and the layer at work
    assert footprint.needed(4, offloads=True) == GIB + 126  # 2 x 10 + 100


def test_experts_count_as_often_as_a_token_meets_one():
    config = MixtralConfig(hidden_size=8, intermediate_size=16, num_experts_per_tok=2, num_hidden_layers=3)
    assert LayerShape.of(config) == LayerShape(8, 32, 3, 32_000)


def test_config_that_does_not_tell_its_shape_gives_none():
    assert LayerShape.of(PretrainedConfig()) is None


def test_estimate_is_near_what_a_llama_keeps():
    kept = {num_layers: _kept_bytes(num_layers) for num_layers in (1, 3)}
    shape = LayerShape(width=64, mlp_width=224, num_layers=2, vocab_size=50)
    estimated = estimate(shape, **(ADAMW | {"num_tokens": 128, "compute_bytes": 4})).kept_layer
    measured = (kept[3] - kept[1]) / 2
    assert measured <= estimated * 1.1
    assert estimated <= measured * 1.4


def _kept_bytes(num_layers: int) -> int:
    """Of all that the backward pass of a forward pass over 128 tokens holds, weights left out."""
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=64,
        intermediate_size=224,
        num_hidden_layers=num_layers,
        num_attention_heads=4,
        num_key_value_heads=1,
    )
    model = LlamaForCausalLM(config).train()
    weights = {part.untyped_storage().data_ptr() for part in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        logits = model(input_ids=torch.arange(128)[None] % 50, use_cache=False).logits
    assert logits.requires_grad  # the graph lives until all was counted
    return sum(kept.values())
