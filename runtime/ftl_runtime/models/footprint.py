"""How much memory a training asks of a GPU beyond the weights that lie there: an estimate from the model's shape."""

from collections.abc import Mapping
from dataclasses import dataclass

from transformers import PretrainedConfig

_GIB = 2**30
_FIXED_BYTES = _GIB
"""Of the libraries' own work space, and of what memory is lost between tensors."""
_LOST_SHARE = 0.05
_LOGITS_CHUNK_BYTES = _GIB
"""Of ftl_runtime.kernels.head, on a GPU."""

# Numbers that a layer keeps for its backward pass, for each token: so many times the width of the model, and of its
# MLP. tests/runtime/models/test_footprint.py counts what is really kept.
_KEPT_PLAINLY = (12, 4)
_KEPT_BY_KERNELS = (6, 2)
"""With Liger's norms and gated layers, which make again what is cheap to make."""

_BYTES_OF_STATES: Mapping[str, float] = {
    **dict.fromkeys(("adamw_bnb_8bit", "adamw_torch_8bit", "ao_adamw_fp8"), 2),
    "adamw_torch_4bit": 1,
    "ademamix_8bit": 3,
    "lion_8bit": 1,
    "rmsprop_bnb_8bit": 1,
    "adafactor": 0.1,
    "sgd": 0,
}
"""For each trained weight, whatever its format."""
_NUMBERS_OF_STATES: Mapping[str, int] = {
    **dict.fromkeys(("lion_32bit", "adagrad", "rmsprop", "rmsprop_bnb_32bit", "muon"), 1),
    "ademamix": 3,
}
"""For each trained weight, in its format; two where nothing is said."""


@dataclass(frozen=True)
class LayerShape:
    """What decides how much a model keeps for its backward pass."""

    width: int
    mlp_width: int
    """Of all experts that a token goes through."""
    num_layers: int
    vocab_size: int

    @classmethod
    def of(cls, config: PretrainedConfig) -> "LayerShape | None":
        """None for a config that names its sizes otherwise."""
        text = config.get_text_config()
        if not all(hasattr(text, name) for name in ("hidden_size", "num_hidden_layers", "vocab_size")):
            return None
        width = int(text.hidden_size)
        mlp = getattr(text, "intermediate_size", None) or getattr(text, "ffn_dim", None) or 4 * width
        experts = getattr(text, "num_experts_per_tok", None) or 0
        of_experts = experts * (getattr(text, "moe_intermediate_size", None) or mlp)
        return cls(width, max(int(mlp), int(of_experts)), int(text.num_hidden_layers), int(text.vocab_size))


@dataclass(frozen=True)
class Footprint:
    """Bytes on one GPU."""

    states: int
    """Gradients and the optimizer's states."""
    head: int
    """Of the last layer and the loss, at their peak."""
    kept_layer: int
    """Activations of a layer that keeps them."""
    layer_input: int
    """All that a layer keeps which computes its activations again."""
    num_layers: int

    def needed(self, num_recomputed: int, *, offloads: bool = False) -> int:
        """With the activations of the first so many layers recomputed.

        These give way first in the backward pass what the later ones hold, so that one of them at work needs no room
        of its own unless all of them are recomputed. With `offloads` the inputs lie in main memory, but for two.
        """
        num_kept = self.num_layers - num_recomputed
        activations = num_kept * self.kept_layer + num_recomputed * self.layer_input
        if num_kept == 0:
            activations += self.kept_layer
        if offloads:
            activations = 2 * self.layer_input + self.kept_layer
        needed = self.states + self.head + activations
        return int(needed * (1 + _LOST_SHARE)) + _FIXED_BYTES


def estimate(
    shape: LayerShape,
    *,
    num_tokens: int,
    num_trained: int,
    trained_bytes: int,
    optimizer: str,
    compute_bytes: int,
    cast_bytes: int = 0,
    num_scores: int = 0,
    makes_logits: bool = False,
    has_kernels: bool = False,
    num_ranks: int = 1,
) -> Footprint:
    """Of one rank that takes `num_tokens` at a time.

    `trained_bytes` is what the trained weights take, `compute_bytes` what a number takes in the format of products, and
    `cast_bytes` what copies of the weights in that format take, which autocast keeps until the backward pass.
    `num_scores` is of attention that makes them all: so many for each token of a layer.
    """
    of_width, of_mlp = _KEPT_BY_KERNELS if has_kernels else _KEPT_PLAINLY
    numbers = of_width * shape.width + of_mlp * shape.mlp_width + 2 * num_scores
    gradients = trained_bytes * (2 if num_ranks > 1 else 1)  # DDP has buckets of its own beside them
    return Footprint(
        states=gradients + _states_bytes(optimizer, num_trained, trained_bytes),
        head=_head_bytes(shape, num_tokens, compute_bytes, makes_logits=makes_logits),
        kept_layer=num_tokens * numbers * compute_bytes + cast_bytes // shape.num_layers,
        layer_input=num_tokens * shape.width * compute_bytes,
        num_layers=shape.num_layers,
    )


def fewest_recomputed(footprint: Footprint, free_bytes: int) -> int | None:
    """The fewest layers whose activations must be recomputed for the training to fit; None where that is not enough.

    Never all of them: keeping those of the last layer costs nothing, for they are needed at once.
    """
    counts = range(max(footprint.num_layers, 1))
    return next((number for number in counts if footprint.needed(number) <= free_bytes), None)


def _states_bytes(optimizer: str, num_trained: int, trained_bytes: int) -> int:
    if optimizer.startswith("paged_"):
        return 0  # they give way to what does not fit
    if optimizer in _BYTES_OF_STATES:
        return int(num_trained * _BYTES_OF_STATES[optimizer])
    return trained_bytes * _NUMBERS_OF_STATES.get(optimizer, 2)


def _head_bytes(shape: LayerShape, num_tokens: int, compute_bytes: int, *, makes_logits: bool) -> int:
    if makes_logits:  # as they are computed, in fp32, and their gradient
        return num_tokens * shape.vocab_size * (compute_bytes + 4 + 4)
    of_weights = 4 * shape.vocab_size * shape.width
    return _LOGITS_CHUNK_BYTES + num_tokens * shape.width * compute_bytes + of_weights
