"""Which weights have the most signal, by their singular values. Source: Spectrum, arXiv 2406.06623.

Singular values above s (1 + sqrt(m / n)) are taken for signal, the others for noise, in a matrix of m x n with m <= n:
a bound after Marchenko and Pastur. The paper estimates s from the quartiles of the singular values.
"""

import math
import re

import torch
from torch import Tensor, nn

_IQR_OF_NORMAL = 1.349
"""Quartiles of a normal distribution are this many deviations apart."""


@torch.no_grad()
def rank_weights(model: nn.Module, share: float, *, device: torch.device) -> list[str]:
    """Names of that share of the blocks' matrices, of each kind those with the highest ratio of signal to noise.

    At least one of each kind.
    """
    blocks = {name: weight for name, weight in model.named_parameters() if weight.ndim == 2 and _kind(name) != name}
    kinds: dict[str, list[tuple[float, str]]] = {}
    for name, weight in blocks.items():
        kinds.setdefault(_kind(name), []).append((signal_to_noise(weight.to(device)), name))
    chosen = [
        name
        for ranked in kinds.values()
        for _, name in sorted(ranked, reverse=True)[: max(1, int(len(ranked) * share))]
    ]
    return [name for name in blocks if name in set(chosen)]


def signal_to_noise(weight: Tensor) -> float:
    """Sum of the singular values that are signal over the sum of those that are noise, over the largest one."""
    values = torch.linalg.svdvals(weight.float())
    low, high = torch.quantile(values, torch.tensor([0.25, 0.75], device=values.device)).tolist()
    rows, columns = sorted(weight.shape)
    bound = (high - low) / _IQR_OF_NORMAL * (1 + math.sqrt(rows / columns))
    signal, noise = values[values > bound].sum(), values[values <= bound].sum()
    return float(signal / noise / values[0]) if noise > 0 else math.inf


def _kind(name: str) -> str:
    """The name without the number of the block: model.layers.3.mlp.up_proj.weight is of the kind of all up_proj."""
    return re.sub(r"\.\d+\.", ".N.", name)
