"""The MLP of each layer computed a tile of the sequence at a time: `tiled_mlp`.

What is between its projections is several times as wide as the model; it stands in memory for one tile alone, and is
computed again in the backward pass. Source: arXiv 2506.13996, TiledMLP.
"""

import inspect
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Forward = Callable[[Tensor], Tensor]


def tile_mlps(model: nn.Module, num_tiles: int | None) -> int:
    """Have every MLP of `model` compute [..., T, D] in so many tiles of T; gives how many MLPs there are.

    Without a number there are as many tiles as T is longer than D. Left alone are MLPs that take more than one tensor.
    """
    mlps = [module for module in model.modules() if _is_plain(module)]
    for mlp in mlps:
        mlp.forward = _tiled(mlp.forward, num_tiles)
    return len(mlps)


def _is_plain(module: nn.Module) -> bool:
    """MLPs act on each token by itself; transformers' are classes by that name."""
    return type(module).__name__.endswith("MLP") and len(inspect.signature(type(module).forward).parameters) == 2


def _tiled(whole: Forward, num_tiles: int | None) -> Forward:
    def forward(x_TD: Tensor) -> Tensor:
        length, width = x_TD.shape[-2:]
        count = min(num_tiles or -(-length // width), length)
        if count <= 1:
            return whole(x_TD)
        tiles = x_TD.chunk(count, dim=-2)
        if not torch.is_grad_enabled():
            return torch.cat([whole(tile) for tile in tiles], dim=-2)
        return torch.cat([checkpoint(whole, tile, use_reentrant=False) for tile in tiles], dim=-2)

    return forward
