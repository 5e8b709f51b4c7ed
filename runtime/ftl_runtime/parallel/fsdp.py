"""A model in shards: each rank keeps its part of every weight, gradient and optimizer state. Torch's FSDP2.

Applied here and not by transformers' Trainer, which on a CPU trains copies instead, and says nothing.
Checkpoints and the finished model are gathered whole, a weight at a time, into the main memory of rank 0: they are the
files that a training without shards writes, so a run goes on in any number of shards, or in none. Where shards are to
be written as they are, shards.py does it.
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from ftl.config.parallel import FsdpSection, ParallelSection
from ftl.errors import ConfigError
from ftl_runtime.context import Device
from ftl_runtime.models.quantize import lay_open


def in_use(parallel: ParallelSection, device: Device) -> FsdpSection | None:
    """How the model is shared; None where it is not, as by one rank alone."""
    return parallel.fsdp if device.num_ranks > 1 else None


def shard(model: nn.Module, parallel: ParallelSection, dtype: torch.dtype, device: Device) -> None:
    """Cut the model up in place: each of its layers as one piece, which is gathered when it computes.

    What is in no layer, as embeddings and head are, is the last piece. `dtype` is what products are computed in:
    weights travel in it, gradients are summed in fp32. Raises ConfigError when a named layer is not in the model, or
    for what is not trained in shards: weights in few bits other than bitsandbytes' 4, and fp16, whose gradients are
    scaled.
    """
    fsdp = parallel.fsdp
    assert fsdp is not None, "the caller asks"
    if dtype == torch.float16:
        raise ConfigError("fsdp_config: shards are not trained in fp16, which this GPU needs: remove it, or use fp32")
    lay_open(model, device)
    unknown = next((name for name, weight in model.named_parameters() if not _is_known(weight)), None)
    if unknown is not None:
        raise ConfigError(f"fsdp_config: the base holds {unknown} in 8 bits, which are not sharded: remove it")
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    if dtype == torch.float32:
        policy = MixedPrecisionPolicy()
    offload = CPUOffloadPolicy(pin_memory=device.kind == "cuda") if fsdp.offload_params else OffloadPolicy()
    cut = partial(
        fully_shard,
        mesh=_mesh(parallel, device),
        reshard_after_forward=fsdp.reshard_after_forward,
        mp_policy=policy,
        offload_policy=offload,
    )
    for layer in reversed(pieces(model, fsdp.transformer_layer_cls_to_wrap)):  # what is inside another comes first
        cut(layer)
    cut(model)


def layout(parallel: ParallelSection, num_ranks: int) -> tuple[int, int]:
    """(copies of the model, shards of each copy) over so many ranks. One that the config leaves open is what remains.

    Raises ConfigError where they do not come to that number.
    """
    copies, shards = parallel.num_copies, parallel.num_shards
    if shards is None:
        shards = num_ranks // (copies or 1) if parallel.fsdp is not None else 1
    if copies is None:
        copies = num_ranks // shards
    if copies * shards != num_ranks:
        given = {"dp_replicate_size": parallel.num_copies, "dp_shard_size": parallel.num_shards}
        said = " and ".join(f"{key}: {value}" for key, value in given.items() if value is not None)
        raise ConfigError(f"{said}: do not come to the {num_ranks} processes of this run; their product must")
    return copies, shards


def is_sharded(model: nn.Module) -> bool:
    return isinstance(model, FSDPModule)


def whole(value: Any) -> Any:  # Any: a tensor, or a number beside tensors
    """A sharded tensor put together; everything else as it is. All ranks must ask, in the same order."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def saved_weights(model: nn.Module) -> dict[str, Tensor]:
    """Those of the model's weights that its files hold, by their names in the model.

    Of an adapter: what is trained, and the embeddings, which go along where the vocabulary has grown.
    """
    weights: dict[str, Tensor] = model.state_dict(keep_vars=True)
    if not isinstance(model, PeftModel):
        return weights
    base = model.get_base_model()
    ends = (base.get_input_embeddings(), base.get_output_embeddings())  # type: ignore[operator]
    kept = {id(weight) for end in ends if end is not None for weight in end.parameters()}
    return {name: value for name, value in weights.items() if value.requires_grad or id(value) in kept}


def whole_weights(model: nn.Module, device: Device) -> dict[str, Tensor]:
    """What the model's files hold, without shards, in main memory. On the ranks other than 0 it is empty.

    Weights that are one in the model are one here.
    """
    gathered: dict[int, Tensor] = {}
    weights: dict[str, Tensor] = {}
    for name, value in saved_weights(model).items():
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


def _is_known(weight: Tensor) -> bool:
    return weight.is_floating_point() or weight.dtype == torch.uint8


def _mesh(parallel: ParallelSection, device: Device) -> DeviceMesh:
    """Ranks side by side share one copy of the model: those of a machine, whose GPUs are near one another."""
    copies, shards = layout(parallel, device.num_ranks)
    if copies == 1:
        return init_device_mesh(device.kind, (shards,))
    return init_device_mesh(device.kind, (copies, shards), mesh_dim_names=("copy", "shard"))
