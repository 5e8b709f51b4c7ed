"""The last layer and its loss in one: the logits of a large vocabulary never stand whole in memory.

Rows of the batch are taken a chunk at a time, only those that are trained; the gradient of a chunk is made while its
logits are there, so nothing is computed twice and two (frozen head) or three products are all it takes.

Shapes: N tokens, D hidden size, V vocabulary.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ftl_runtime.kernels import softmax

_CHUNK_BYTES = {"cuda": 2**30, "cpu": 2**26}
"""Of logits, in the format they are computed in."""

HeadLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(hidden [B, T, D], weight [V, D], bias [V] or None) -> what the model gives as its logits."""


def summed_cross_entropy(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    rows_M: Tensor,
    targets_M: Tensor,
    *,
    by_probability: bool = False,
) -> Tensor:
    """Sum over the M tokens of `rows_M` of -log p(target | hidden), in nats, in fp32; 0 when there are none.

    With `by_probability` each is multiplied by p, which carries no gradient. Logits are computed in the format of
    autocast where it is on, else in that of `hidden_ND`.
    """
    total: Tensor = _SummedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_ND, weight_VD, bias_V, rows_M, targets_M, by_probability
    )
    return total


def chosen_logits(
    hidden_ND: Tensor,
    weight_VD: Tensor,
    bias_V: Tensor | None,
    rows_M: Tensor,
    ids_MK: Tensor,
    temperatures: tuple[float, ...],
) -> Tensor:
    """[M, K + S], fp32: the logits of some tokens of the vocabulary, then log sum exp(logits / t) over all of it for
    each of S temperatures.

    What a softmax over the vocabulary makes of those tokens follows from it. `rows_M` are different rows. The logits
    are computed again on the way back. Format as summed_cross_entropy.
    """
    found: Tensor = _ChosenLogits.apply(  # type: ignore[no-untyped-call]
        hidden_ND, weight_VD, bias_V, rows_M, ids_MK, temperatures
    )
    return found


@contextmanager
def head_gives(model: nn.Module, loss: HeadLoss) -> Iterator[None]:
    """Within the block `model` gives `loss(hidden, weight, bias)` in the place of its logits.

    It is called where the model would call its head, so whatever gathers sharded weights or sets number formats around
    a forward pass is in force.
    """
    head = head_of(model)
    assert head is not None, "asked for only where splits_off_head said yes"

    def forward(hidden_BTD: Tensor) -> Tensor:
        return loss(hidden_BTD, head.weight, head.bias)

    head.forward = forward  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del head.forward  # the class's own comes back


def head_of(model: nn.Module) -> nn.Linear | None:
    """The layer that makes logits, None where it is not a plain one: in an adapter, quantised, or a model's own."""
    try:
        head = model.get_output_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    return head if type(head) is nn.Linear else None


@torch.no_grad()
def splits_off_head(model: nn.Module) -> bool:
    """Whether the logits of `model` are those of its head and nothing more: found by comparing them on a few tokens.

    Some models scale or cap their logits afterwards. Draws no random numbers; the model's mode stays as it is.
    """
    head = head_of(model)
    if head is None or head.weight.is_meta or head.weight.shape[0] < 2:
        return False
    seen: list[Tensor] = []

    def note(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        seen.append(output)

    hook = head.register_forward_hook(note)
    ids_BT = torch.arange(4, device=head.weight.device)[None] % head.weight.shape[0]
    devices = [head.weight.device] if head.weight.is_cuda else []
    try:
        with torch.random.fork_rng(devices):
            logits = model(input_ids=ids_BT, use_cache=False).logits
    finally:
        hook.remove()
    return len(seen) == 1 and seen[0].shape == logits.shape and torch.equal(seen[0].float(), logits.float())


class _SummedCrossEntropy(torch.autograd.Function):
    """The gradients are made on the way forward, and scaled on the way back."""

    @staticmethod
    def forward(
        ctx: Any,  # Any: torch's own protocol
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        rows_M: Tensor,
        targets_M: Tensor,
        by_probability: bool,
    ) -> Tensor:
        dtype = _dtype_of_products(hidden_ND)
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        compute_VD = weight_VD.detach().to(dtype)
        bias = None if bias_V is None else bias_V.detach().to(dtype)
        total = torch.zeros((), dtype=torch.float32, device=hidden_ND.device)
        grad_hidden_ND = torch.zeros_like(hidden_ND) if needs_hidden else None
        empty = torch.empty_like if len(rows_M) else torch.zeros_like  # the first chunk writes all of it
        grad_weight_VD = empty(weight_VD, dtype=torch.float32) if needs_weight else None
        grad_bias_V = torch.zeros_like(bias_V, dtype=torch.float32) if needs_bias and bias_V is not None else None
        for start in range(0, len(rows_M), _rows_per_chunk(compute_VD)):
            rows_C = rows_M[start : start + _rows_per_chunk(compute_VD)]
            targets_C = targets_M[start : start + _rows_per_chunk(compute_VD)]
            hidden_CD = hidden_ND.detach()[rows_C].to(dtype)
            logits_CV = linear(hidden_CD, compute_VD, bias)
            losses_C = softmax.losses_and_gradient_(logits_CV, targets_C, keeps_gradient=any(ctx.needs_input_grad))
            if by_probability:
                probabilities_C = losses_C.neg().exp_()
                losses_C = losses_C * probabilities_C
                logits_CV *= probabilities_C[:, None].to(logits_CV.dtype)
            total += losses_C.sum()
            if grad_hidden_ND is not None:
                grad_hidden_ND[rows_C] = (logits_CV @ compute_VD).to(grad_hidden_ND.dtype)
            if grad_weight_VD is not None:
                _add_product_(grad_weight_VD, logits_CV, hidden_CD, is_first=start == 0)
            if grad_bias_V is not None:
                grad_bias_V += logits_CV.sum(0, dtype=torch.float32)
        ctx.save_for_backward(grad_hidden_ND, grad_weight_VD, grad_bias_V)
        ctx.weight_dtype = weight_VD.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # Any: torch's own protocol
        (grad,) = grads
        hidden, weight, bias = (part if part is None else part.mul_(grad) for part in ctx.saved_tensors)
        if weight is not None:
            weight = weight.to(ctx.weight_dtype)
        if bias is not None:
            bias = bias.to(ctx.weight_dtype)
        return hidden, weight, bias, None, None, None


class _ChosenLogits(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # Any: torch's own protocol
        hidden_ND: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        rows_M: Tensor,
        ids_MK: Tensor,
        temperatures: tuple[float, ...],
    ) -> Tensor:
        ctx.dtype, ctx.temperatures = _dtype_of_products(hidden_ND), temperatures
        num_ids = ids_MK.shape[1]
        found = torch.empty((len(rows_M), num_ids + len(temperatures)), dtype=torch.float32, device=hidden_ND.device)
        for chunk in _chunks_in_fp32(len(rows_M), weight_VD):
            logits_CV = _logits(hidden_ND[rows_M[chunk]], weight_VD, bias_V, ctx.dtype).float()
            found[chunk, :num_ids] = logits_CV.gather(1, ids_MK[chunk])
            for s, temperature in enumerate(temperatures):
                found[chunk, num_ids + s] = (logits_CV / temperature).logsumexp(1)
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, rows_M, ids_MK, found[:, num_ids:].clone())
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # Any: torch's own protocol
        (grad,) = grads
        hidden_ND, weight_VD, bias_V, rows_M, ids_MK, log_sums_MS = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_hidden_ND = torch.zeros_like(hidden_ND) if needs_hidden else None
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=torch.float32) if needs_weight else None
        grad_bias_V = torch.zeros_like(bias_V, dtype=torch.float32) if needs_bias and bias_V is not None else None
        num_ids = ids_MK.shape[1]
        for chunk in _chunks_in_fp32(len(rows_M), weight_VD):
            rows_C = rows_M[chunk]
            hidden_CD = hidden_ND[rows_C].to(ctx.dtype)
            logits_CV = _logits(hidden_CD, weight_VD, bias_V, ctx.dtype).float()
            grad_CV = torch.zeros_like(logits_CV).scatter_add_(1, ids_MK[chunk], grad[chunk, :num_ids])
            for s, temperature in enumerate(ctx.temperatures):
                shares_CV = (logits_CV / temperature - log_sums_MS[chunk, s : s + 1]).exp_()
                grad_CV.addcmul_(shares_CV, grad[chunk, num_ids + s : num_ids + s + 1] / temperature)
            grad_CV = grad_CV.to(ctx.dtype)
            if grad_hidden_ND is not None:
                grad_hidden_ND[rows_C] = (grad_CV @ weight_VD.to(ctx.dtype)).to(grad_hidden_ND.dtype)
            if grad_weight_VD is not None:
                _add_product_(grad_weight_VD, grad_CV, hidden_CD, is_first=False)
            if grad_bias_V is not None:
                grad_bias_V += grad_CV.sum(0, dtype=torch.float32)
        weight = None if grad_weight_VD is None else grad_weight_VD.to(weight_VD.dtype)
        bias = None if grad_bias_V is None or bias_V is None else grad_bias_V.to(bias_V.dtype)
        return grad_hidden_ND, weight, bias, None, None, None


def _logits(hidden_CD: Tensor, weight_VD: Tensor, bias_V: Tensor | None, dtype: torch.dtype) -> Tensor:
    return linear(hidden_CD.to(dtype), weight_VD.to(dtype), None if bias_V is None else bias_V.to(dtype))


def _dtype_of_products(hidden_ND: Tensor) -> torch.dtype:
    kind = hidden_ND.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden_ND.dtype


def _chunks_in_fp32(num_rows: int, weight_VD: Tensor) -> Iterator[slice]:
    """Places of rows, so many that three times their logits in fp32 take no more than one time in their own format."""
    size = max(1, _rows_per_chunk(weight_VD) * weight_VD.element_size() // 12)
    return (slice(start, start + size) for start in range(0, num_rows, size))


def _rows_per_chunk(weight_VD: Tensor) -> int:
    chunk_bytes = _CHUNK_BYTES.get(weight_VD.device.type, _CHUNK_BYTES["cpu"])
    return max(64, chunk_bytes // (weight_VD.shape[0] * weight_VD.element_size()))


def _add_product_(sum_VD: Tensor, a_CV: Tensor, b_CD: Tensor, *, is_first: bool) -> None:
    """sum += a^T b, with the sum in fp32 whatever the factors are in; the first time sum = a^T b, whatever it held."""
    beta = 0 if is_first else 1
    if a_CV.dtype == torch.float32:
        sum_VD.addmm_(a_CV.t(), b_CD, beta=beta)
    elif a_CV.is_cuda:
        torch.addmm(sum_VD, a_CV.t(), b_CD, out_dtype=torch.float32, out=sum_VD, beta=beta)
    elif is_first:
        sum_VD.copy_(a_CV.t() @ b_CD)
    else:
        sum_VD += a_CV.t() @ b_CD
