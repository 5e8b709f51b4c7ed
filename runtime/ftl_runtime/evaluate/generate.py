"""Greedy answers, a batch at a time. No random numbers are drawn."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerBase


def answers(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    batch_size: int,
) -> Iterator[list[int]]:
    """What `model`, in eval mode, writes after each prompt: ids up to the token that ends it, or `max_new_tokens`.

    A prompt that leaves no room for so many is answered as far as the model's positions reach.
    """
    writer: Any = model  # Any: nn.Module does not know that every causal model, and peft's, can generate
    base = writer.get_base_model() if hasattr(writer, "get_base_model") else writer
    limit = getattr(base.config, "max_position_embeddings", None)
    ends = ends_of(tokenizer, base)
    pad = tokenizer.pad_token_id
    greedy = {"do_sample": False, "num_beams": 1, "pad_token_id": pad, "eos_token_id": ends}
    with plain_attention(base):
        for start in range(0, len(prompts), batch_size):
            batch = prompts[start : start + batch_size]
            width = max(len(ids) for ids in batch)
            room = max(1, min(max_new_tokens, limit - width) if limit else max_new_tokens)
            # Padded at the start, so that each answer begins at the same place.
            ids = torch.tensor([[pad] * (width - len(row)) + row for row in batch], device=base.device)
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch], device=base.device)
            config = GenerationConfig(**greedy, max_new_tokens=room)  # type: ignore[no-untyped-call]
            written = writer.generate(input_ids=ids, attention_mask=mask, generation_config=config, use_cache=True)
            for row in written[:, width:].tolist():
                yield _up_to_end(row, ends)


def ends_of(tokenizer: PreTrainedTokenizerBase, base: Any) -> list[int]:  # Any: a model of any class
    """The tokens that end an answer."""
    own = getattr(getattr(base, "generation_config", None), "eos_token_id", None)
    found = [tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])]
    return list(dict.fromkeys(end for end in found if end is not None))


def _up_to_end(ids: list[int], ends: list[int]) -> list[int]:
    stop = next((place for place, id in enumerate(ids) if id in ends), len(ids))
    return ids[:stop]


@contextmanager
def plain_attention(base: Any) -> Iterator[None]:  # Any: as above
    """Attention as generation calls it: a kernel for packed rows wants the borders of documents."""
    before = base.config._attn_implementation
    if before != "varlen":
        yield
        return
    base.config._attn_implementation = "sdpa" if getattr(base, "_supports_sdpa", False) else "eager"
    try:
        yield
    finally:
        base.config._attn_implementation = before
