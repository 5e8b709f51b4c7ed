"""LoftQ: an adapter that starts from what 4 bits have lost of the base. Source: arXiv 2310.08659.

Shapes: O outputs, I inputs, R rank.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from peft import PeftModel
from safetensors import safe_open
from torch import Tensor

from ftl.errors import ConfigError


@torch.no_grad()
def start_from_loss(model: PeftModel, base: str, revision: str | None) -> None:
    """Set each pair of matrices on a 4-bit layer to the best approximation of W - Q, the weights less those of 4 bits.

    One iteration of the paper's: the base stays what bitsandbytes makes of it, so that the adapter fits any 4-bit load
    of it. Raises ConfigError when the weights of a layer are not in the base under the layer's name.
    """
    from bitsandbytes.functional import dequantize_4bit

    shards = _shards(base, revision)
    for name, layer in _layers(model):
        key = f"{name}.weight"
        if key not in shards:
            raise ConfigError(f"peft_init_lora_weights: loftq: the base has no {key}; start another way")
        quantised = layer.base_layer.weight
        held_OI = dequantize_4bit(quantised.data, quantised.quant_state).float()
        with safe_open(shards[key], framework="pt") as file:
            lost_OI = file.get_tensor(key).to(held_OI.device, torch.float32) - held_OI
        a_RI, b_OR = best_factors(lost_OI / layer.scaling["default"], layer.r["default"])
        layer.lora_A["default"].weight.copy_(a_RI)
        layer.lora_B["default"].weight.copy_(b_OR)


def best_factors(weight_OI: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """A [R, I] and B [O, R] with BA as near to the weight as any matrix of that rank is; both of the same size."""
    left, values, right = torch.linalg.svd(weight_OI, full_matrices=False)
    root = values[:rank].sqrt()
    return root[:, None] * right[:rank], left[:, :rank] * root


def _layers(model: PeftModel) -> Iterator[tuple[str, Any]]:  # Any: one of peft's layers, each a class of its own
    """The adapted 4-bit layers, by the name that their weights have in the base."""
    part: Any  # the same
    for name, part in model.named_modules():
        if hasattr(part, "lora_A") and hasattr(part.base_layer.weight, "quant_state"):
            yield name.removeprefix("base_model.model."), part


def _shards(base: str, revision: str | None) -> dict[str, Path]:
    """Name of a tensor -> the file that has it."""
    directory = Path(base)
    if not directory.is_dir():  # loaded a moment ago, so it is here already
        directory = Path(snapshot_download(base, revision=revision, allow_patterns=["*.safetensors"]))
    found: dict[str, Path] = {}
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= dict.fromkeys(file.keys(), path)
    return found
