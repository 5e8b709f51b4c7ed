"""NEFTune: noise on the embeddings of what is trained. Source: arXiv 2310.05914."""

import math
from typing import Any

import torch
from torch import Tensor, nn


def add_noise(embeddings: nn.Module, alpha: float, *, rows_in_one: int = 1) -> None:
    """Have the module add uniform noise to its output, where gradients are taken in training.

    The noise is at most alpha / sqrt(T d), for T tokens in a row and d features. `rows_in_one` tells how many rows lie
    end to end in one. Drawn from torch's random state, so that a resumed training draws the same.
    """

    def hook(module: nn.Module, inputs: Any, output_BTD: Tensor) -> Tensor:  # Any: what the module was called with
        if not module.training or not torch.is_grad_enabled():
            return output_BTD
        num_tokens, num_features = output_BTD.shape[-2] / rows_in_one, output_BTD.shape[-1]
        most = alpha / math.sqrt(num_tokens * num_features)
        return output_BTD + torch.empty_like(output_BTD).uniform_(-most, most)

    embeddings.register_forward_hook(hook)
