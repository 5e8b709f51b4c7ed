"""Log-probabilities of given tokens. The fp32 softmax over the vocabulary stands in memory for a few tokens at a time.

Shapes: B rows, T tokens, V vocabulary, N tokens that have a label.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ftl_runtime.objectives.terms import IGNORED

_CHUNK_BYTES = 2**28
"""Of fp32 logits at a time."""


def token_logprobs(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """[B, T - 1], fp32, in nats: of each label given what is before it; 0 where the label is IGNORED.

    Logits at position t predict the label at t + 1. The gradient is made in chunks too, in the type of the logits.
    """
    logprobs: Tensor = _TokenLogprobs.apply(logits_BTV, labels_BT)  # type: ignore[no-untyped-call]
    return logprobs


@torch.no_grad()
def log_sum_squares(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """[B, T - 1], fp32: log of the sum of the squares of all tokens' probabilities; 0 where the label is IGNORED."""
    logits_MV, targets_M = _flat(logits_BTV, labels_BT)
    found_M = torch.zeros(len(targets_M), dtype=torch.float32, device=logits_BTV.device)
    for chunk_N in _chunks(targets_M, logits_MV.shape[1]):
        logits_NV = logits_MV[chunk_N].float()
        found_M[chunk_N] = (2 * logits_NV).logsumexp(-1) - 2 * logits_NV.logsumexp(-1)
    return found_M.view(labels_BT.shape)[:, :-1]


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:  # Any: autograd's own
        logits_MV, targets_M = _flat(logits_BTV, labels_BT)
        found_M = torch.zeros(len(targets_M), dtype=torch.float32, device=logits_BTV.device)
        sums_M = torch.zeros_like(found_M)
        for chunk_N in _chunks(targets_M, logits_MV.shape[1]):
            logits_NV = logits_MV[chunk_N].float()
            sums_M[chunk_N] = logits_NV.logsumexp(-1)
            found_M[chunk_N] = logits_NV.gather(1, targets_M[chunk_N, None])[:, 0] - sums_M[chunk_N]
        ctx.save_for_backward(logits_BTV, labels_BT, sums_M)
        return found_M.view(labels_BT.shape)[:, :-1]

    @staticmethod
    def backward(ctx: Any, grad_BT: Tensor) -> tuple[Tensor, None]:  # Any: autograd's own
        logits_BTV, labels_BT, sums_M = ctx.saved_tensors
        logits_MV, targets_M = _flat(logits_BTV, labels_BT)
        grad_M = torch.nn.functional.pad(grad_BT, (0, 1)).reshape(-1)
        grad_MV = torch.zeros_like(logits_MV, memory_format=torch.contiguous_format)
        for chunk_N in _chunks(targets_M, logits_MV.shape[1]):
            grad_N1 = grad_M[chunk_N, None]
            grad_NV = (logits_MV[chunk_N].float() - sums_M[chunk_N, None]).exp_().mul_(-grad_N1)
            grad_NV.scatter_add_(1, targets_M[chunk_N, None], grad_N1)
            grad_MV[chunk_N] = grad_NV.to(grad_MV.dtype)
        return grad_MV.view(logits_BTV.shape), None


def _flat(logits_BTV: Tensor, labels_BT: Tensor) -> tuple[Tensor, Tensor]:
    """[M, V] and [M], M = B * T: the logits, and the label that each of them predicts."""
    targets_BT = torch.full_like(labels_BT, IGNORED)
    targets_BT[:, :-1] = labels_BT[:, 1:]
    return logits_BTV.reshape(-1, logits_BTV.shape[-1]), targets_BT.reshape(-1)


def _chunks(targets_M: Tensor, vocabulary: int) -> Iterator[Tensor]:
    """Numbers of the positions that predict a label, a few at a time."""
    labelled_N = (targets_M != IGNORED).nonzero()[:, 0]
    size = max(1, _CHUNK_BYTES // (4 * vocabulary))
    return (labelled_N[start : start + size] for start in range(0, len(labelled_N), size))
