"""Attention within documents of one long row, without a mask: `attn_implementation="varlen"` of transformers' models.

On CUDA FlashAttention as torch brings it, told where documents begin; elsewhere one document after the other. No token
looks out of its document, padding costs what a document of its length costs, and nothing of size T x T is ever made.

Shapes: B rows (one, where documents are told), T tokens of a row, H heads of the queries, K heads of keys and values,
D numbers a head, N documents.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "varlen"
_LARGEST_HEAD = 256
"""Numbers a head that torch's FlashAttention takes."""

# Architectures whose layers hand the borders of documents through to attention, and ask no more of it than a causal
# window. Measured: tests/runtime/kernels/test_varlen.py compares each with its documents alone.
_MEASURED = frozenset(
    {"apertus", "arcee", "bitnet", "cohere", "cohere2", "ernie4_5", "exaone4", "gemma", "gemma3_text", "glm", "glm4"}
    | {"gpt2", "gpt_neox", "granite", "granitemoe", "llama", "mistral", "mixtral", "nemotron", "olmo", "olmo2", "olmo3"}
    | {"olmoe", "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3", "starcoder2"}
)


def fits(config: PreTrainedConfig, architecture: type[PreTrainedModel]) -> bool:
    """Whether models of this config compute the same with it as with a mask."""
    heads = getattr(config, "num_attention_heads", None) or 1
    head_dim = getattr(config, "head_dim", None) or getattr(config, "hidden_size", 0) // heads
    dropout = getattr(config, "attention_dropout", 0.0) or getattr(config, "attn_pdrop", 0.0) or 0.0
    is_known = config.model_type in _MEASURED and getattr(architecture, "_supports_attention_backend", False)
    return is_known and head_dim <= _LARGEST_HEAD and head_dim % 8 == 0 and dropout == 0.0


def varlen_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int | None = None,
    **kwargs: Any,  # Any: whatever else transformers hands to every attention
) -> tuple[Tensor, None]:
    """What transformers calls for each layer: query [B, H, T, D], key and value [B, K, T, D] -> [B, T, H, D].

    `cu_seq_lens_q`, int32 [N + 1], holds the first token of every document of a single row and, last, T. Without it
    each row is one document. With a cache, keys of tokens before the queries', it is plain attention.
    """
    assert attention_mask is None and dropout == 0.0
    rows, _, length, _ = query.shape
    if key.shape[2] != length:
        return sdpa_attention_forward(module, query, key, value, None, scaling=scaling)
    if cu_seq_lens_q is None or max_length_q is None:
        cu_seq_lens_q = torch.arange(0, (rows + 1) * length, length, dtype=torch.int32, device=query.device)
        max_length_q = length
    window = -1 if sliding_window is None else sliding_window - 1
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    attend = _flash if query.is_cuda else _one_by_one
    q_THD, k_TKD, v_TKD = (part.transpose(1, 2).flatten(0, 1) for part in (query, key, value))
    out_THD = attend(q_THD, k_TKD, v_TKD, cu_seq_lens_q, max_length_q, scale, window)
    return out_THD.view(rows, length, *out_THD.shape[1:]), None


AttentionInterface.register(NAME, varlen_attention)


def _one_by_one(
    q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, starts: Tensor, longest: int, scale: float, window: int
) -> Tensor:
    outputs = []
    for start, stop in pairwise(starts.tolist()):
        q_HTD, k_KTD, v_KTD = (part[start:stop].transpose(0, 1) for part in (q_THD, k_TKD, v_TKD))
        length = stop - start
        mask = None
        if 0 <= window < length - 1:
            mask = torch.ones(length, length, dtype=torch.bool, device=q_HTD.device).tril().triu(-window)
        out_HTD = scaled_dot_product_attention(
            q_HTD[None], k_KTD[None], v_KTD[None], mask, is_causal=mask is None, scale=scale, enable_gqa=True
        )[0]
        outputs.append(out_HTD.transpose(0, 1))
    return torch.cat(outputs)


def _flash(
    q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, starts: Tensor, longest: int, scale: float, window: int
) -> Tensor:
    # Rotary embeddings may have made fp32 of what autocast would multiply in bf16.
    given = v_TKD.dtype
    dtype = torch.bfloat16 if given == torch.float32 else given
    q_THD, k_TKD, v_TKD = (part.to(dtype) for part in (q_THD, k_TKD, v_TKD))
    out_THD: Tensor = _varlen(q_THD, k_TKD, v_TKD, starts, longest, scale, window)[0]
    return out_THD.to(given)


# Operators of their own, so that torch.compile takes them as they are.


@torch.library.custom_op("ftl::varlen", mutates_args=())
def _varlen(
    q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, starts: Tensor, longest: int, scale: float, window: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The output [T, H, D], the log-sum-exp [H, T], and the state of dropout, which there is none of."""
    out_THD, lse_HT, rng_state, _, _ = torch.ops.aten._flash_attention_forward(
        q_THD, k_TKD, v_TKD, starts, starts, longest, longest, 0.0, True, False,
        scale=scale, window_size_left=window, window_size_right=0,
    )  # fmt: skip
    return out_THD, lse_HT, torch.zeros_like(rng_state)


@_varlen.register_fake
def _(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, starts: Tensor, longest: int, scale: float, window: int) -> Any:
    lse_HT = torch.empty((q_THD.shape[1], q_THD.shape[0]), dtype=torch.float32, device=q_THD.device)
    return torch.empty_like(q_THD), lse_HT, torch.empty((2,), dtype=torch.uint64, device=q_THD.device)


@torch.library.custom_op("ftl::varlen_backward", mutates_args=())
def _varlen_backward(
    grad_THD: Tensor, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, out_THD: Tensor, lse_HT: Tensor, rng_state: Tensor,
    starts: Tensor, longest: int, scale: float, window: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    unused = torch.empty(0, device=q_THD.device)
    with _deterministic():
        dq_THD, dk_TKD, dv_TKD = torch.ops.aten._flash_attention_backward(
            grad_THD, q_THD, k_TKD, v_TKD, out_THD, lse_HT, starts, starts, longest, longest, 0.0, True, rng_state,
            unused, scale=scale, window_size_left=window, window_size_right=0,
        )  # fmt: skip
    return dq_THD, dk_TKD, dv_TKD


@_varlen_backward.register_fake
def _(grad_THD: Tensor, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, *rest: Any) -> Any:
    return torch.empty_like(q_THD), torch.empty_like(k_TKD), torch.empty_like(v_TKD)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:  # Any: torch's own protocol
    q_THD, k_TKD, v_TKD, starts, *ctx.rest = inputs
    ctx.save_for_backward(q_THD, k_TKD, v_TKD, *output, starts)


def _backward(ctx: Any, grad_THD: Tensor, *_: Any) -> tuple[Tensor | None, ...]:  # Any: torch's own protocol
    grads = _varlen_backward(grad_THD.contiguous(), *ctx.saved_tensors, *ctx.rest)
    return (*grads, None, None, None, None)


_varlen.register_autograd(_backward, setup_context=_keep)


@contextmanager
def _deterministic() -> Iterator[None]:
    """Sums in one order: FlashAttention's backward keeps to it only where it must, not where it is merely asked to."""
    was, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(was)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warned)
