"""Examples to ids and labels, many at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenizers import Encoding

from ftl.formats.example import Example
from ftl.tokens.view import TokenizerView

MASKED = -100  # the label of a token that is not trained


@dataclass(frozen=True)
class Tokens:
    """One example: its ids, and for each id the same id or MASKED."""

    ids: list[int]
    labels: list[int]


def encode(examples: Sequence[Example], view: TokenizerView) -> list[Tokens]:
    """The tokens of each example, uncut. One call to the tokenizer, whose threads share the work."""
    joined = [example for example in examples if example.is_one_text]
    apart = [segment.text for example in examples if not example.is_one_text for segment in example.segments]
    texts = ["".join(segment.text for segment in example.segments) for example in joined]
    # encode_batch_fast leaves out the offsets, which only joined segments need.
    whole = iter(view.tokenizer.encode_batch(texts, add_special_tokens=False))
    pieces = iter(view.tokenizer.encode_batch_fast(apart, add_special_tokens=False))
    result = []
    for example in examples:
        if example.is_one_text:
            tokens = _label_joined(example, next(whole))
        else:
            tokens = _label_apart(example, [next(pieces).ids for _ in example.segments])
        result.append(_add_ends(example, tokens, view))
    return result


def _label_apart(example: Example, ids_of_segments: list[list[int]]) -> Tokens:
    ids: list[int] = []
    labels: list[int] = []
    for segment, segment_ids in zip(example.segments, ids_of_segments, strict=True):
        ids += segment_ids
        labels += segment_ids if segment.train else [MASKED] * len(segment_ids)
    return Tokens(ids, labels)


def _label_joined(example: Example, encoding: Encoding) -> Tokens:
    ids = encoding.ids
    labels = [MASKED] * len(ids)
    num_chars = sum(len(segment.text) for segment in example.segments)
    end = 0
    for segment in example.segments:
        start, end = end, end + len(segment.text)
        if segment.train:
            first, stop = _token_range(encoding, start, end, num_chars)
            labels[first:stop] = ids[first:stop]
    return Tokens(ids, labels)


def _token_range(encoding: Encoding, start: int, end: int, num_chars: int) -> tuple[int, int]:
    """The tokens that hold any of the characters from start to end: the first one, and the one after the last."""
    first = _first_token(encoding, range(start, end))
    if first is None:
        return 0, 0
    stop = _first_token(encoding, range(end, num_chars))
    if stop is None:
        return first, len(encoding)
    begins = encoding.token_to_chars(stop)
    return first, stop + 1 if begins is not None and begins[0] < end else stop


def _first_token(encoding: Encoding, chars: Iterable[int]) -> int | None:
    """The first token of the first character that has one; some tokenizers leave characters out."""
    return next((token for token in map(encoding.char_to_token, chars) if token is not None), None)


def _add_ends(example: Example, tokens: Tokens, view: TokenizerView) -> Tokens:
    ids, labels = tokens.ids, tokens.labels
    missing = [view.eos_id] * _num_missing_eos(example, ids, view) if example.num_eos and ids else []
    if missing:
        ids = [*ids, *missing]
        labels = [*labels, *(missing if example.segments[-1].train else [MASKED] * len(missing))]
    if example.bos and ids:
        prefix = list(view.prefix_ids)
        ids = [*prefix, *ids]
        labels = [*(prefix if example.segments[0].train else [MASKED] * len(prefix)), *labels]
    return Tokens(ids, labels)


def _num_missing_eos(example: Example, ids: Sequence[int], view: TokenizerView) -> int:
    if example.segments[-1].text:
        return example.num_eos - (ids[-1] == view.eos_id)
    is_ended = example.empty_ends == "yes" or (example.empty_ends == "if_bos" and bool(view.prefix_ids))
    return example.num_eos if is_ended else 0
