"""How a model was really laid out over the ranks: transformers may leave a request to spread it unheeded."""

import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from ftl_runtime.context import Device
from ftl_runtime.parallel.tensor import Cut, num_cut


def spread_of(model: nn.Module, device: Device, cut: Cut | None = None) -> str | None:
    """In words, of the model as it is called in training; None with one rank.

    Raises AssertionError for one that would train on each rank by itself.
    """
    num_ranks = device.num_ranks
    if num_ranks == 1:
        return None
    num_joined = dist.get_world_size()
    assert num_joined == num_ranks, f"{num_ranks} ranks were started, and {num_joined} work together"
    shared = f", {device.ranks_per_copy} of which share the tokens of a row" if device.ranks_per_copy > 1 else ""
    if isinstance(model, FSDPModule):
        num_pieces = sum(isinstance(part, FSDPModule) for part in model.modules())
        uncut = [name for name, parameter in model.named_parameters() if not isinstance(parameter, DTensor)]
        assert not uncut, f"weights that no rank shares: {uncut}"
        mesh = next(parameter.device_mesh for parameter in model.parameters() if isinstance(parameter, DTensor))
        copies = f", in {mesh.size(0)} copies" if mesh.ndim > 1 else ""
        return f"{num_pieces} pieces, each in {mesh.size(mesh.ndim - 1)} shards{copies} (FSDP2){shared}"
    if cut is not None:
        assert num_cut(model), "each rank has all weights"
        copies = "a copy" if device.num_copies == 1 else f"{device.num_copies} copies"
        return f"{copies} of the model, {num_cut(model)} weights of it in {device.ranks_per_copy} parts each"
    assert isinstance(model, DistributedDataParallel), f"the ranks do not share their gradients: {type(model)}"
    return f"a copy of the model in each of {num_ranks} processes{shared}"
