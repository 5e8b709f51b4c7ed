"""The linear layers of a model: those an adapter can stand beside."""

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


def linear_layers(model: PreTrainedModel) -> list[str]:
    """Full names of the linear layers but the head, in the order of the model.

    Left out are routers that give more than a product, and the last projection of Mamba layers, whose fused kernels
    read its weight without the layer. Experts kept as one stacked parameter are no layers.
    """
    heads = [model.get_output_embeddings()]  # type: ignore[no-untyped-call]
    heads += [getattr(model, name, None) for name in ("score", "classifier")]
    mamba = tuple(f"{name}." for name, part in model.named_modules() if _is_named(part, "Mamba", "Mixer"))
    return [
        name
        for name, part in model.named_modules()
        if isinstance(part, nn.Linear | Conv1D)
        and not any(part is head for head in heads)
        and not _is_named(part, "Router", "Gate")
        and not (name.endswith(".out_proj") and name.startswith(mamba))
    ]


def _is_named(part: nn.Module, *words: str) -> bool:
    return any(word in type(part).__name__ for word in words)
