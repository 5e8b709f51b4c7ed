"""What is left of a sample under the length rules of a config."""

from dataclasses import dataclass
from typing import Literal

from ftl.config.data import DataSection
from ftl.formats.example import Example, Judged, Pair, Preference, Sample, Steps
from ftl.tokens import MASKED, Tokens, num_pieces

Parts = tuple[Tokens, ...]
"""The token sequences of one sample: two for a preference or a pair, else one."""

_ALWAYS_CUT = (Pair, Steps)  # reward data is cut at sequence_len whatever excess_length_strategy says

_ANSWERED = (Preference, Judged)  # without a word of the answer they say nothing


@dataclass(frozen=True)
class Fitted:
    """The samples that one became: none if it is dropped, several if it is split."""

    samples: tuple[Parts, ...]
    dropped: Literal["too long", "too short"] | None = None
    is_truncated: bool = False
    is_split: bool = False
    """Into pieces, of which a last one may be left out."""


def fit(sample: Sample, parts: Parts, data: DataSection) -> Fitted:
    """The sample within sequence_len and min_sample_len. Where too long is an error, the caller says so."""
    lengths = [len(tokens.ids) for tokens in parts]
    if min(lengths) < data.min_sample_len:
        return Fitted((), "too short")
    if max(lengths) <= data.sequence_len:
        return Fitted((parts,))
    may_split = data.excess_length == "split" or (isinstance(sample, Example) and sample.may_split)
    if may_split and len(parts) == 1:
        return Fitted(tuple((piece,) for piece in _split(parts[0], data)), is_split=True)
    cut = tuple(_cut(tokens, 0, data.sequence_len) for tokens in parts)
    is_cut = data.excess_length == "truncate" or isinstance(sample, _ALWAYS_CUT)
    if is_cut and not (isinstance(sample, _ANSWERED) and any(_trains_nothing(tokens) for tokens in cut)):
        return Fitted((cut,), is_truncated=True)
    return Fitted((), "too long")


def too_long_sentence(parts: Parts, data: DataSection) -> str:
    """What is wrong with a sample that was left out as too long."""
    length = max(len(tokens.ids) for tokens in parts)
    reason = f"{length:,} tokens, more than sequence_len = {data.sequence_len}"
    return f"{reason}: excess_length_strategy: raise forbids it" if data.excess_length == "raise" else reason


def _split(tokens: Tokens, data: DataSection) -> list[Tokens]:
    """Pieces of sequence_len; a last one below min_sample_len is left out."""
    pieces = range(num_pieces(len(tokens.ids), data.sequence_len, data.min_sample_len))
    return [_cut(tokens, number * data.sequence_len, data.sequence_len) for number in pieces]


def _trains_nothing(tokens: Tokens) -> bool:
    return tokens.labels.count(MASKED) == len(tokens.labels)


def _cut(tokens: Tokens, start: int, length: int) -> Tokens:
    return Tokens(tokens.ids[start : start + length], tokens.labels[start : start + length])
