"""Rows to a batch of tensors, with what keeps the documents of a row apart."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any, Literal

import numpy as np
import torch

from ftl.tokens import MASKED
from ftl_runtime.data.dataset import DocumentRow
from ftl_runtime.data.teacher import batched

# Shapes: B rows, T tokens of the longest row, or sequence_len; M trained tokens.

Documents = Literal["borders", "positions", "mask"]
"""What tells a model which tokens of a row belong together."""


@dataclass(frozen=True)
class Collator:
    """Makes a batch of rows, each of them a tuple of documents.

    input_ids_BT and labels_BT are padded at the end; labels are MASKED where nothing is trained, and at the first
    token of every document, which would else be predicted from the document before. position_ids_BT restart at 0 in
    every document and in the padding. num_tokens is the number of tokens without padding, an int on the host.
    trained_rows_M and trained_targets_M are, for each trained token of the flattened batch, the place that predicts it
    and the token itself; where there is a teacher, teacher_ids_MK and teacher_logits_MK are what it expects there.

    With documents = "borders" the rows come as one, [1, B * T], and with them where documents begin and how long the
    longest is: what flash attention takes. With "positions" the model must tell documents apart by their positions:
    use_cache off, and no attention mask beside them. Right for models whose masks transformers makes. With "mask" the
    batch holds attention_mask, [B, 1, T, T], additive: 0 where a token may look, else the lowest number of `dtype`;
    where the model has layers with a `window`, a mapping with one such mask for each kind of layer.
    """

    pad_id: int
    sequence_len: int
    pad_to_sequence_len: bool
    documents: Documents
    dtype: torch.dtype = torch.float32
    """Of the mask; that of the model's activations."""
    window: int | None = None
    """How many tokens, itself included, a token of a sliding_attention layer looks at; None without such layers."""
    is_flat: bool = False
    """The rows come as one, without padding."""

    def __call__(self, rows: Sequence[DocumentRow]) -> dict[str, Any]:  # Any: tensors, and the int num_tokens
        if self.is_flat:
            rows = [tuple(chain.from_iterable(rows))]
        num_tokens_B = [sum(len(document.ids) for document in row) for row in rows]
        width = self.sequence_len if self.pad_to_sequence_len else max(num_tokens_B)
        input_ids_BT = np.full((len(rows), width), self.pad_id, np.int64)
        labels_BT = np.full((len(rows), width), MASKED, np.int64)
        position_ids_BT = np.zeros((len(rows), width), np.int64)
        for b, row in enumerate(rows):
            end = 0
            for document in row:
                start, end = end, end + len(document.ids)
                input_ids_BT[b, start:end] = document.ids
                labels_BT[b, start + 1 : end] = document.labels[1:]
                position_ids_BT[b, start:end] = np.arange(end - start)
            position_ids_BT[b, end:] = np.arange(width - end)
        targets_N = np.roll(labels_BT.reshape(-1), -1)  # what is rolled to the end is the masked first token
        trained_rows_M = np.flatnonzero(targets_N != MASKED)
        batch: dict[str, Any] = {
            "input_ids": torch.from_numpy(input_ids_BT),
            "labels": torch.from_numpy(labels_BT),
            "position_ids": torch.from_numpy(position_ids_BT),
            "trained_rows": torch.from_numpy(trained_rows_M),
            "trained_targets": torch.from_numpy(targets_N[trained_rows_M]),
            "num_tokens": sum(num_tokens_B),
        }
        targets = [[document.targets for document in row if document.targets is not None] for row in rows]
        if any(targets):
            batch |= batched(targets, width, trained_rows_M + 1)
        if self.documents == "mask":
            batch["attention_mask"] = self._masks(batch["position_ids"])
        elif self.documents == "borders":
            batch |= {key: batch[key].reshape(1, -1) for key in ("input_ids", "labels", "position_ids")}
            batch |= _borders(rows, width)
        return batch

    def _masks(self, position_ids_BT: torch.Tensor) -> torch.Tensor | dict[str, torch.Tensor]:
        full = document_mask(position_ids_BT, self.dtype)
        if self.window is None:
            return full
        is_too_far_TT = torch.ones(full.shape[-2:], dtype=torch.bool).tril(-self.window)
        sliding = full.masked_fill(is_too_far_TT, torch.finfo(self.dtype).min)
        return {"full_attention": full, "sliding_attention": sliding}


def _borders(rows: Sequence[DocumentRow], width: int) -> dict[str, Any]:  # Any: tensors, and ints
    """Where the documents of the flattened batch begin, by transformers' names; the padding of a row is one of them."""
    lengths: list[int] = []
    for row in rows:
        lengths += (len(document.ids) for document in row)
        padding = width - sum(len(document.ids) for document in row)
        lengths += [padding] if padding else []
    starts = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32)
    longest = max(lengths)
    return {"cu_seq_lens_q": starts, "cu_seq_lens_k": starts, "max_length_q": longest, "max_length_k": longest}


def document_mask(position_ids_BT: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """[B, 1, T, T]: 0 where query t may look at key s of its own document, s <= t; else the lowest number."""
    document_BT = (position_ids_BT == 0).cumsum(1)
    is_same_BTT = document_BT[:, :, None] == document_BT[:, None, :]
    mask_BTT = torch.zeros(is_same_BTT.shape, dtype=dtype).masked_fill_(~is_same_BTT.tril(), torch.finfo(dtype).min)
    return mask_BTT[:, None]
