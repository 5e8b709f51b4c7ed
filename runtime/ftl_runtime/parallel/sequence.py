"""Context parallelism: the ranks of a group have the same rows, and each works on some of their tokens.

Only attention looks beyond a token. There every rank gathers the keys and values of all tokens, and computes the
queries of its own. Of a row in 2R equal stretches rank r has the r-th from the front and the r-th from the end, so
that all R have about as many pairs of tokens. The rest of the model knows nothing of it: losses are sums over the
tokens of a rank, and gradients are summed over ranks as with data parallel training.

Shapes: T tokens of the row, t of a rank, H heads of the queries, K heads of keys and values, D numbers a head.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface

from ftl.errors import ConfigError
from ftl_runtime.context import Device
from ftl_runtime.kernels import varlen
from ftl_runtime.models.attention import AttentionPlan
from ftl_runtime.objectives.terms import IGNORED, Batch, Counts
from ftl_runtime.train.scoring import Inputs

_KEY = "context_parallel_size"


@dataclass(frozen=True)
class Split:
    """Which tokens this rank works on, and with whom."""

    number: int
    """Of this rank in its group, from 0."""
    num_ranks: int
    group: dist.ProcessGroup

    def share(self, batch: Batch) -> Batch:
        """The part of this rank, of a batch whose rows lie end to end with the borders of their documents.

        The borders stay those of all tokens. What is missing to 2R equal stretches is padded, as a document.
        """
        starts, length = batch["cu_seq_lens_q"], batch["input_ids"].shape[1]
        missing = -length % (2 * self.num_ranks)
        if missing:
            starts = torch.cat([starts, starts[-1:] + missing])
        places_t = self._places(length + missing).to(batch["input_ids"].device)
        local_T = torch.full((length + missing,), -1, device=places_t.device)
        local_T[places_t] = torch.arange(len(places_t), device=places_t.device)
        rows_M = local_T[batch["trained_rows"]]
        part = {
            "input_ids": pad(batch["input_ids"], (0, missing))[:, places_t],
            "labels": pad(batch["labels"], (0, missing), value=IGNORED)[:, places_t],
            "position_ids": pad(batch["position_ids"], (0, missing))[:, places_t],
            "trained_rows": rows_M[rows_M >= 0],
            "trained_targets": batch["trained_targets"][rows_M >= 0],
            "cu_seq_lens_q": starts,
            "cu_seq_lens_k": starts,
        }
        return {**batch, **part}

    def once(self, counts: Counts) -> Counts:
        """What all ranks of a group have counted in the same rows, so that it adds up over ranks."""
        return counts if self.number == 0 else (0,) * len(counts)

    def attention(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        sliding_window: int | None = None,
        cu_seq_lens_q: Tensor | None = None,
        **kwargs: Any,  # Any: whatever else transformers hands to every attention
    ) -> tuple[Tensor, None]:
        """As varlen_attention, with the queries, keys and values of this rank and the borders of all.

        Without borders, as when the model writes, each rank has all tokens.
        """
        assert attention_mask is None and dropout == 0.0
        if cu_seq_lens_q is None:
            return varlen.varlen_attention(module, query, key, value, None, dropout, scaling, sliding_window)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        query, key = query.to(value.dtype), key.to(value.dtype)  # rotary embeddings may have made fp32 of them
        stretches, starts = self._stretches(query.shape[2] * self.num_ranks), cu_seq_lens_q.tolist()
        both_2KTD = self._in_order(_Gather.apply(torch.cat([key, value]), self.group))  # type: ignore[no-untyped-call]
        outputs, done = [], 0
        for first, end in stretches:
            q_HtD = query[:, :, done : done + end - first]
            done += end - first
            for start, begin, stop in _looks(starts, first, end):
                k_KTD, v_KTD = both_2KTD[:1, :, start:stop], both_2KTD[1:, :, start:stop]
                part = q_HtD[:, :, begin - first : stop - first]
                outputs.append(_attend(part, k_KTD, v_KTD, scale, sliding_window))
        return torch.cat(outputs, dim=2).transpose(1, 2), None

    def _in_order(self, gathered: tuple[Tensor, ...]) -> Tensor:
        """The tokens of all ranks as they stand in the row."""
        fronts, ends = zip(*(part.chunk(2, dim=2) for part in gathered), strict=True)
        return torch.cat([*fronts, *reversed(ends)], dim=2)

    def _stretches(self, length: int) -> list[tuple[int, int]]:
        """From where to where the tokens of this rank go."""
        size = length // (2 * self.num_ranks)
        return [(place * size, (place + 1) * size) for place in (self.number, 2 * self.num_ranks - 1 - self.number)]

    def _places(self, length: int) -> Tensor:
        return torch.cat([torch.arange(*stretch) for stretch in self._stretches(length)])


def split(attention: AttentionPlan, device: Device) -> Split:
    """Share tokens out over the ranks of each copy of the model; attention of models is `Split.attention` from then on.

    All ranks must ask. Raises ConfigError where the model needs another attention.
    """
    if (attention.implementation, attention.documents) != (varlen.NAME, "borders"):
        raise ConfigError(
            f"{_KEY}: {device.ranks_per_copy}: tokens of a row are shared out only where attention is told the borders "
            f"of documents, and this model has {attention.implementation}; remove attn_implementation if it is given, "
            f"else {_KEY}"
        )
    shape = device.num_copies, device.ranks_per_copy
    mesh = init_device_mesh(device.kind, shape, mesh_dim_names=("copy", "part"))
    found = Split(device.rank % device.ranks_per_copy, device.ranks_per_copy, mesh.get_group("part"))
    AttentionInterface.register(varlen.NAME, found.attention)
    return found


def check(inputs: Inputs, model: nn.Module) -> None:
    """Raises ConfigError for a model whose loss is no sum over tokens that each rank can make of its own."""
    if not inputs.splits_head:
        raise ConfigError(f"{_KEY}: the head of this model is no plain layer, so its loss is not shared out; remove it")
    if getattr(model.config, "output_router_logits", False):
        raise ConfigError(
            f"{_KEY}: the loss of routers is of whole rows; set output_router_logits: false in "
            "overrides_of_model_config, or remove it"
        )


class _Gather(torch.autograd.Function):
    """The tensors of all ranks of a group, in their order; each gets back the sum of what all make of its own."""

    @staticmethod
    def forward(ctx: Any, here: Tensor, group: dist.ProcessGroup) -> tuple[Tensor, ...]:  # Any: torch's own protocol
        ctx.group = group
        parts = [torch.empty_like(here, memory_format=torch.contiguous_format) for _ in range(group.size())]
        dist.all_gather(parts, here.contiguous(), group=group)
        return tuple(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # Any: as above
        summed = torch.stack(grads)
        dist.all_reduce(summed, group=ctx.group)  # gloo has no reduce_scatter
        return summed[ctx.group.rank()], None


def _looks(starts: list[int], first: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Of each document with tokens from `first` to `end`: its first token, and its first and last of those."""
    for start, stop in pairwise(starts):
        if start < end and stop > first:
            yield start, max(start, first), min(stop, end)


def _attend(q_HtD: Tensor, k_KTD: Tensor, v_KTD: Tensor, scale: float, window: int | None) -> Tensor:
    """The last t of T tokens look at those up to themselves."""
    num_queries, num_keys = q_HtD.shape[2], k_KTD.shape[2]
    mask: Any = None  # Any: a tensor, or torch's way to say one
    if window is not None and window < num_keys:
        ones = torch.ones(num_queries, num_keys, dtype=torch.bool, device=q_HtD.device)
        mask = ones.tril(num_keys - num_queries).triu(num_keys - num_queries - window + 1)
    elif num_queries < num_keys:
        mask = causal_lower_right(num_queries, num_keys)
    return scaled_dot_product_attention(q_HtD, k_KTD, v_KTD, mask, is_causal=mask is None, scale=scale, enable_gqa=True)
