"""A scheme of the config in torchao's terms. Imported only where something is rounded: torchao takes a second."""

import torch
from torch import nn
from torchao.core.config import AOBaseConfig
from torchao.quantization import (
    Float8DynamicActivationFloat8WeightConfig,
    Float8WeightOnlyConfig,
    Int8DynamicActivationIntxWeightConfig,
    IntxWeightOnlyConfig,
)
from torchao.quantization.granularity import PerGroup, PerRow
from transformers import PreTrainedModel

from ftl.config.rounding import Scheme
from ftl.errors import ConfigError
from ftl_runtime.models.linear import linear_layers

_INTEGERS: dict[str, torch.dtype] = {"int8": torch.int8, "int4": torch.int4}  # type: ignore[attr-defined]


def of_layers(scheme: Scheme) -> AOBaseConfig:
    """How torchao rounds a linear layer."""
    if scheme.weight_dtype == "fp8":
        if scheme.activation_dtype is None:
            return Float8WeightOnlyConfig(granularity=PerRow())
        return Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())
    weights, group = _INTEGERS[scheme.weight_dtype], PerGroup(scheme.group_size)
    if scheme.activation_dtype is None:
        return IntxWeightOnlyConfig(weight_dtype=weights, granularity=group)
    return Int8DynamicActivationIntxWeightConfig(weight_dtype=weights, weight_granularity=group)


def of_embedding(scheme: Scheme) -> AOBaseConfig:
    """How torchao rounds the embeddings."""
    return IntxWeightOnlyConfig(weight_dtype=_INTEGERS[scheme.weight_dtype], granularity=PerGroup(scheme.group_size))


def rounded_layers(model: PreTrainedModel, scheme: Scheme, key: str) -> list[str]:
    """Full names of the linear layers that are rounded; `key` is what the config calls the scheme.

    Raises ConfigError where the groups do not fit, or where the embeddings cannot be rounded.
    """
    names = [name for name in linear_layers(model) if isinstance(model.get_submodule(name), nn.Linear)]
    sizes = {name: int(model.get_submodule(name).weight.shape[1]) for name in names}  # type: ignore[index]
    if scheme.quantize_embedding:
        if model.config.tie_word_embeddings:
            raise ConfigError(
                f"{key}.quantize_embedding: the embeddings of this model are its head too, which stays whole; remove it"
            )
        sizes["the embeddings"] = embedding_of(model).embedding_dim
    odd = next((name for name, size in sizes.items() if size % scheme.group_size), None)
    if scheme.weight_dtype in _INTEGERS and odd is not None:
        raise ConfigError(f"{key}.group_size: {scheme.group_size}: does not divide the {sizes[odd]} inputs of {odd}")
    return names


def embedding_of(model: PreTrainedModel) -> nn.Embedding:
    found = model.get_input_embeddings()
    assert isinstance(found, nn.Embedding), "causal models of transformers have one"
    return found
