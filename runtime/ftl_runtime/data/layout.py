"""How the rows of an objective become batches."""

from collections.abc import Callable
from typing import Any

from ftl.config.data import DataSection
from ftl.errors import ConfigError
from ftl_runtime.data.collate import Collator, Documents
from ftl_runtime.data.compare import ComparedRows, JudgedCollator, JudgedRows, PairCollator, ScoredCollator
from ftl_runtime.data.dataset import TokenRows
from ftl_runtime.data.prompts import PromptCollator
from ftl_runtime.objectives import Layout

Collate = Callable[[list[Any]], dict[str, Any]]  # Any: rows of one layout; tensors, and ints on the host


def collator_of(layout: Layout, texts: Collator) -> Collate:
    """`texts` is the one for single texts; the others pad as it does."""
    match layout:
        case "texts":
            return texts
        case "prompts":
            return PromptCollator()
        case "pairs":
            return PairCollator(texts.pad_id, texts.sequence_len, texts.pad_to_sequence_len)
        case "judged":
            return JudgedCollator(texts.pad_id, texts.sequence_len, texts.pad_to_sequence_len)
        case "scored" | "steps":
            return ScoredCollator(texts.pad_id, texts.sequence_len, texts.pad_to_sequence_len)


def lies_end_to_end(data: DataSection, documents: Documents) -> bool:
    """Whether the texts of a batch come as one row without padding.

    Raises ConfigError where that is asked for and attention is not told where each text begins: all tokens would be
    held against all others then, which costs more than padding.
    """
    if data.batch_flattening is True and documents != "borders":
        raise ConfigError(
            "batch_flattening: true: the attention of this model is not told where texts begin; write "
            "batch_flattening: auto, or fill rows with sample_packing: true"
        )
    return bool(data.batch_flattening) and documents == "borders" and not data.pad_to_sequence_len


def rows_of(layout: Layout, rows: TokenRows, sequence_len: int) -> TokenRows | ComparedRows | JudgedRows:
    """The rows as the collator of that layout takes them."""
    match layout:
        case "texts" | "prompts":
            return rows
        case "judged":
            return JudgedRows(rows, sequence_len)
        case "pairs" | "scored" | "steps":
            return ComparedRows(rows)
