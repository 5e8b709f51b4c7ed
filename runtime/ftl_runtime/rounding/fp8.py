"""Products of linear layers in fp8, forward and backward, by torchao; weights and their gradients keep their format.

Each product scales both of its factors to the largest of their values first. Source: arXiv 2209.05433.
"""

from torch import nn
from transformers import PreTrainedModel

from ftl.errors import ConfigError
from ftl_runtime.models.linear import linear_layers

_MULTIPLE = 16
"""GPUs multiply matrices in fp8 whose sides are multiples of it."""


def compute_in_fp8(model: PreTrainedModel, *, emulate: bool = False) -> int:
    """Have every linear layer but the head, and those with odd sides, multiply in fp8; how many there are.

    Parameters stay the same objects. With `emulate` products are made of the rounded factors in fp32, on any machine.
    Raises ConfigError where no layer fits.
    """
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    names = {name for name in linear_layers(model) if _fits(model.get_submodule(name))}
    if not names:
        raise ConfigError(f"fp8: no linear layer of this model has sides that are multiples of {_MULTIPLE}; remove it")
    convert_to_float8_training(
        model, config=Float8LinearConfig(emulate=emulate), module_filter_fn=lambda part, name: name in names
    )
    return len(names)


def _fits(layer: nn.Module) -> bool:
    return type(layer) is nn.Linear and layer.in_features % _MULTIPLE == 0 and layer.out_features % _MULTIPLE == 0
