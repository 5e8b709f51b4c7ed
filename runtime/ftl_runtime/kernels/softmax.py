"""Cross-entropy over rows of logits, and its gradient in their place.

Shapes: C tokens, V vocabulary.
"""

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor


def losses_and_gradient_(logits_CV: Tensor, targets_C: Tensor, *, keeps_gradient: bool) -> Tensor:
    """[C]: -log softmax(logits)[target], in nats, in fp32; `logits_CV` then holds the gradient of their sum.

    Without `keeps_gradient` the logits are left with nothing of meaning in them.
    """
    if logits_CV.is_cuda and find_spec("triton") is not None:
        return _on_cuda(logits_CV, targets_C)
    values_CV = logits_CV.float()
    highest_C1 = values_CV.amax(1, keepdim=True)
    chosen_C1 = values_CV.gather(1, targets_C[:, None]) - highest_C1
    values_CV = values_CV.sub_(highest_C1).exp_()  # in the logits' own memory where they are in fp32
    sums_C1 = values_CV.sum(1, keepdim=True)
    losses_C = (sums_C1.log() - chosen_C1)[:, 0]
    if keeps_gradient:
        values_CV.div_(sums_C1)
        values_CV.scatter_add_(1, targets_C[:, None], -torch.ones_like(sums_C1))
        if values_CV is not logits_CV:
            logits_CV.copy_(values_CV)
    return losses_C


def _on_cuda(logits_CV: Tensor, targets_C: Tensor) -> Tensor:
    losses_C = torch.empty(len(logits_CV), dtype=torch.float32, device=logits_CV.device)
    if len(logits_CV):
        _kernel()[(len(logits_CV),)](
            logits_CV, logits_CV.stride(0), targets_C, losses_C, logits_CV.shape[1], BLOCK=8192, num_warps=16
        )
    return losses_C


@cache
def _kernel() -> Any:  # Any: triton has no types
    import triton  # type: ignore[import-not-found, unused-ignore]  # comes with torch for CUDA
    import triton.language as tl  # type: ignore[import-not-found, unused-ignore]

    @triton.jit  # type: ignore[untyped-decorator, unused-ignore]
    def cross_entropy(logits, stride, targets, losses, V, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
        """One row a program: a pass for the log-sum-exp, and one that writes softmax - one_hot over the logits."""
        row = tl.program_id(0)
        logits += row.to(tl.int64) * stride
        target = tl.load(targets + row)
        highest = float("-inf")
        total = 0.0
        for start in range(0, V, BLOCK):
            at = start + tl.arange(0, BLOCK)
            x = tl.load(logits + at, mask=at < V, other=float("-inf")).to(tl.float32)
            new = tl.maximum(highest, tl.max(x, 0))
            total = total * tl.exp(highest - new) + tl.sum(tl.exp(x - new), 0)
            highest = new
        lse = highest + tl.log(total)
        tl.store(losses + row, lse - tl.load(logits + target).to(tl.float32))
        tl.debug_barrier()
        for start in range(0, V, BLOCK):
            at = start + tl.arange(0, BLOCK)
            x = tl.load(logits + at, mask=at < V, other=float("-inf")).to(tl.float32)
            gradient = tl.exp(x - lse) - tl.where(at == target, 1.0, 0.0)
            tl.store(logits + at, gradient.to(logits.dtype.element_ty), mask=at < V)

    return cross_entropy
