"""Rows that are compared or judged, and batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ftl.tokens import MASKED
from ftl_runtime.data.dataset import Document, DocumentRow, TokenRows

# Shapes: B rows, T tokens of the longest text, or sequence_len. R rows of a dataset.


@dataclass(frozen=True)
class ComparedRow:
    documents: DocumentRow
    """The better answer and the worse one, each after its prompt; or an answer, and that of another row after the same
    prompt."""
    reference: np.ndarray | None = None
    """Of each of them, the log-probability of the answer by the reference."""
    is_good: bool = True
    """The answer, where it is judged by itself."""


@dataclass(frozen=True)
class ComparedRows:
    """The rows of a dataset, with what the reference says of them where that is known."""

    rows: TokenRows
    reference_R2: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> ComparedRow:
        return ComparedRow(self.rows[row], None if self.reference_R2 is None else self.reference_R2[row])

    def costs(self, rows: Sequence[int]) -> list[int]:
        return self.rows.costs(rows)


@dataclass(frozen=True)
class JudgedRows:
    """As ComparedRows, of answers that are good or bad. Each comes with the answer of the row before it, after its own
    prompt: how likely those are tells how far the model has gone from its reference."""

    rows: TokenRows
    sequence_len: int
    reference_R2: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> ComparedRow:
        (document,), (other,) = self.rows[row], self.rows[row - 1 if row else len(self.rows) - 1]
        prompt, answer = document.labels == MASKED, other.labels != MASKED
        stranger = Document(
            np.concatenate([document.ids[prompt], other.ids[answer]])[: self.sequence_len],
            np.concatenate([document.labels[prompt], other.labels[answer]])[: self.sequence_len],
        )
        reference = None if self.reference_R2 is None else self.reference_R2[row]
        return ComparedRow((document, stranger), reference, self.rows.is_good(row))

    def costs(self, rows: Sequence[int]) -> list[int]:
        return self.rows.costs(rows)


@dataclass(frozen=True)
class PairCollator:
    """Makes a batch of B pairs: 2 B rows, the better answers first, then the worse ones in the same order.

    Rows are padded at the end, where a causal model does not see it from any token before: so there is no mask.
    """

    pad_id: int
    sequence_len: int
    pad_to_sequence_len: bool

    def __call__(self, rows: Sequence[ComparedRow]) -> dict[str, Any]:  # Any: tensors, and ints on the host
        documents = [row.documents[side] for side in (0, 1) for row in rows]
        batch = padded(documents, self.pad_id, self.sequence_len if self.pad_to_sequence_len else None)
        if all(row.reference is not None for row in rows):
            reference = [row.reference[side] for side in (0, 1) for row in rows if row.reference is not None]
            batch["reference"] = torch.tensor(reference, dtype=torch.float32)
        return batch


@dataclass(frozen=True)
class JudgedCollator:
    """Makes a batch of B answers, with is_good, [B], and under `stranger` a batch of B answers of other rows."""

    pad_id: int
    sequence_len: int
    pad_to_sequence_len: bool

    def __call__(self, rows: Sequence[ComparedRow]) -> dict[str, Any]:  # Any: as above
        width = self.sequence_len if self.pad_to_sequence_len else None
        batch, stranger = (padded([row.documents[i] for row in rows], self.pad_id, width) for i in (0, 1))
        for i, half in enumerate((batch, stranger)):
            if all(row.reference is not None for row in rows):
                reference = [row.reference[i] for row in rows if row.reference is not None]
                half["reference"] = torch.tensor(reference, dtype=torch.float32)
        del stranger["num_tokens"]
        return {**batch, "is_good": torch.tensor([row.is_good for row in rows]), "stranger": stranger}


@dataclass(frozen=True)
class ScoredCollator:
    """Makes a batch of texts that a model with a head for classes reads: of pairs the better ones first, as
    PairCollator does. attention_mask tells where a text ends, because such a model may look at its last token, or back
    from it."""

    pad_id: int
    sequence_len: int
    pad_to_sequence_len: bool

    def __call__(self, rows: Sequence[ComparedRow]) -> dict[str, Any]:  # Any: as above
        documents = [row.documents[side] for side in range(len(rows[0].documents)) for row in rows]
        batch = padded(documents, self.pad_id, self.sequence_len if self.pad_to_sequence_len else None)
        position_T = torch.arange(batch["labels"].shape[1])
        return {**batch, "attention_mask": (position_T < batch["lengths"][:, None]).long()}


def padded(documents: Sequence[Document], pad_id: int, width: int | None) -> dict[str, Any]:  # Any: as above
    """input_ids and labels of one text a row, [B, T], and their lengths, [B]; on the host first_label, the least
    position of a label, and num_tokens, padding left out. The first token of a text has no label."""
    lengths_B = [len(document.ids) for document in documents]
    width = max(lengths_B) if width is None else width
    input_ids_BT = np.full((len(documents), width), pad_id, np.int64)
    labels_BT = np.full((len(documents), width), MASKED, np.int64)
    for b, (document, length) in enumerate(zip(documents, lengths_B, strict=True)):
        input_ids_BT[b, :length] = document.ids
        labels_BT[b, 1:length] = document.labels[1:]
    has_label_T = (labels_BT != MASKED).any(0)
    return {
        "input_ids": torch.from_numpy(input_ids_BT),
        "labels": torch.from_numpy(labels_BT),
        "lengths": torch.tensor(lengths_B),
        "first_label": int(has_label_T.argmax()) if has_label_T.any() else width - 1,
        "num_tokens": sum(lengths_B),
    }
