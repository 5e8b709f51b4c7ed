"""How a text that is too long is cut: one rule for what is counted on the laptop and what is trained."""

from typing import Any


def num_pieces(length: Any, sequence_len: int, min_sample_len: int) -> Any:  # Any: a whole number, or an array of them
    """The rows of at most `sequence_len` tokens that so many tokens give; a last one that is too short is left out.

    Each length must be at least `min_sample_len`.
    """
    return length // sequence_len + (length % sequence_len >= min_sample_len)
