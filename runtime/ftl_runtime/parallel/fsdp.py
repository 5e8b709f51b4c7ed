"""A model in shards: each rank keeps its part of every weight, gradient and optimizer state. Torch's FSDP2.

Applied here and not by transformers' Trainer, which on a CPU trains copies instead, and says nothing.
Checkpoints and the finished model are gathered whole, a weight at a time, into the main memory of rank 0: they are the
files that a training without shards writes, so a run goes on in any number of shards, or in none.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from ftl.config.parallel import FsdpSection
from ftl.errors import ConfigError
from ftl_runtime.context import Device


def shard(model: nn.Module, fsdp: FsdpSection, dtype: torch.dtype, device: Device) -> None:
    """Cut the model up in place: each of its layers as one piece, which is gathered when it computes.

    What is in no layer, as embeddings and head are, is the last piece. `dtype` is what products are computed in:
    weights travel in it, gradients are summed in fp32. Raises ConfigError when a named layer is not in the model, or
    for what is not trained in shards: weights in few bits, and fp16, whose gradients are scaled.
    """
    if dtype == torch.float16:
        raise ConfigError("fsdp_config: shards are not trained in fp16, which this GPU needs: remove it, or use fp32")
    few_bits = next((name for name, weight in model.named_parameters() if not weight.is_floating_point()), None)
    if few_bits is not None:
        raise ConfigError(f"fsdp_config: the base holds {few_bits} in few bits, which are not sharded: remove it")
    mesh = init_device_mesh(device.kind, (device.num_ranks,))
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    if dtype == torch.float32:
        policy = MixedPrecisionPolicy()
    for layer in reversed(pieces(model, fsdp.transformer_layer_cls_to_wrap)):  # what is inside another comes first
        fully_shard(layer, mesh=mesh, reshard_after_forward=fsdp.reshard_after_forward, mp_policy=policy)
    fully_shard(model, mesh=mesh, reshard_after_forward=fsdp.reshard_after_forward, mp_policy=policy)


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def whole(value: Any) -> Any:  # Any: a tensor, or a number beside tensors
    """A sharded tensor put together; everything else as it is. All ranks must ask, in the same order."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def whole_weights(model: nn.Module, device: Device) -> dict[str, Tensor]:
    """The model's state dict without shards, in main memory. On the ranks other than 0 it is empty.

    Weights that are one in the model are one here.
    """
    gathered: dict[int, Tensor] = {}
    weights: dict[str, Tensor] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) not in gathered:
            full = whole(value.detach())
            gathered[id(value)] = full.cpu() if device.is_main else torch.empty(0)
        if device.is_main:
            weights[name] = gathered[id(value)]
    return weights


def whole_states(optimizer: Optimizer, device: Device) -> dict[str, Any]:  # Any: as torch's optimizers have it
    """The optimizer's state dict without shards, in main memory. On the ranks other than 0 it has no tensors."""
    found = optimizer.state_dict()
    states: dict[int, dict[str, Any]] = {}  # Any: as above
    for number, state in found["state"].items():
        states[number] = {}
        for name, value in state.items():
            full = whole(value)
            if device.is_main:
                states[number][name] = full.cpu() if isinstance(full, Tensor) else full
    return {**found, "state": states}


def load_states(optimizer: Optimizer, path: Path) -> None:
    """Give each rank its part of the states in `path`, as `whole_states` gave them."""
    saved = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    numbers = [number for group in saved["param_groups"] for number in group["params"]]
    for number, parameter in zip(numbers, parameters, strict=True):
        for name, value in saved["state"].get(number, {}).items():
            if isinstance(parameter, DTensor) and isinstance(value, Tensor) and value.shape == parameter.shape:
                value = value.to(parameter.device)
                saved["state"][number][name] = distribute_tensor(
                    value, parameter.device_mesh, parameter.placements, src_data_rank=None
                )
    optimizer.load_state_dict(saved)


def pieces(model: nn.Module, named: Iterable[str]) -> list[nn.Module]:
    """Those of the named classes, else those that the model's author says must stay in one piece."""
    classes = set(named) or {
        name for part in model.modules() for name in (getattr(part, "_no_split_modules", None) or ())
    }
    layers = [part for part in model.modules() if type(part).__name__ in classes]
    if not layers:
        stacks = [part for part in model.modules() if isinstance(part, nn.ModuleList) and len(part)]
        blocks = sorted({type(next(iter(stack))).__name__ for stack in stacks})
        raise ConfigError(
            f"fsdp_config.transformer_layer_cls_to_wrap: {', '.join(sorted(classes)) or 'absent'}: the model has no "
            f"such layer; its layers are {', '.join(blocks)}"
        )
    return layers
