"""Samples to ids and labels, many at once."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from ftl.formats.example import Example, Judged, Pair, Preference, Sample, Segment, Steps, TokenRow
from ftl.tokens.boundaries import Boundaries
from ftl.tokens.view import TokenizerView

MASKED = -100  # the label of a token that is not trained

_FEW_CORES = 4  # by words one core makes the ids of English as fast as the tokenizer on four

Encodable = Example | TokenRow | Steps
"""A sample that is one row of tokens."""


@dataclass(frozen=True)
class Tokens:
    """One row: its ids, and for each id its label, or MASKED. The label is the id, or 0 or 1 after a step."""

    ids: list[int]
    labels: list[int]


def encode(samples: Sequence[Encodable], view: TokenizerView) -> list[Tokens]:
    """The tokens of each sample, uncut."""
    ids = iter(_ids([text for sample in samples for text in _texts(sample)], view))
    boundaries = Boundaries(view)
    return [_tokens(sample, [next(ids) for _ in _texts(sample)], boundaries, view) for sample in samples]


def encode_any(samples: Sequence[Sample], view: TokenizerView) -> list[tuple[Tokens, ...]]:
    """The rows of tokens of each sample: of a preference and a pair two, the better one first; else one.

    Of a preference or a judged answer, the answer's tokens are the labels.
    """
    rows = [_rows(sample, view) for sample in samples]
    encoded = iter(encode([row for several in rows for row in several], view))
    return [tuple(next(encoded) for _ in several) for several in rows]


def _ids(texts: Sequence[str], view: TokenizerView) -> list[list[int]]:
    """The ids of each text: by its words on few cores, else by the tokenizer, whose threads share the work."""
    if view.words is not None and _num_cores() <= _FEW_CORES:
        return view.words.encode(texts)
    return [encoding.ids for encoding in view.tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _rows(sample: Sample, view: TokenizerView) -> tuple[Encodable, ...]:
    if isinstance(sample, Preference):
        return tuple(_answered(sample.prompt, answer, view) for answer in (sample.chosen, sample.rejected))
    if isinstance(sample, Judged):
        return (_answered(sample.prompt, sample.completion, view),)
    return (sample.chosen, sample.rejected) if isinstance(sample, Pair) else (sample,)


def _answered(prompt: str, answer: str, view: TokenizerView) -> Example:
    """A chat template puts BOS into the prompt, a format does not."""
    has_bos = view.bos_token is not None and prompt.startswith(view.bos_token)
    return Example((Segment(prompt, False), Segment(answer, True)), bos=not has_bos, num_eos=0)


def _texts(sample: Encodable) -> Sequence[str]:
    """The texts of a sample that are tokenised each by itself."""
    if isinstance(sample, TokenRow):
        return ()
    if isinstance(sample, Steps):
        return (sample.prompt, *(text for step in sample.steps for text in (step, sample.separator)))
    texts = [segment.text for segment in sample.segments]
    return ("".join(texts),) if sample.is_one_text else texts


def _tokens(sample: Encodable, ids: list[list[int]], boundaries: Boundaries, view: TokenizerView) -> Tokens:
    if isinstance(sample, TokenRow):
        return Tokens(list(sample.ids), list(sample.labels))
    if isinstance(sample, Steps):
        return _label_steps(sample, ids, view)
    label = _label_joined(sample, ids[0], boundaries) if sample.is_one_text else _label_apart(sample, ids)
    return _add_ends(sample, label, view)


def _label_apart(example: Example, ids_of_segments: list[list[int]]) -> Tokens:
    ids: list[int] = []
    labels: list[int] = []
    for segment, segment_ids in zip(example.segments, ids_of_segments, strict=True):
        ids += segment_ids
        labels += segment_ids if segment.train else [MASKED] * len(segment_ids)
    return Tokens(ids, labels)


def _label_joined(example: Example, ids: list[int], boundaries: Boundaries) -> Tokens:
    text = "".join(segment.text for segment in example.segments)
    ends = list(accumulate(len(segment.text) for segment in example.segments))
    spans = [
        (end - len(segment.text), end) for segment, end in zip(example.segments, ends, strict=True) if segment.train
    ]
    labels = [MASKED] * len(ids)
    for first, stop in boundaries.token_ranges(text, ids, spans):
        labels[first:stop] = ids[first:stop]
    return Tokens(ids, labels)


def _label_steps(sample: Steps, ids: list[list[int]], view: TokenizerView) -> Tokens:
    """The label of a step is on the last token of its separator, or of the step where there is no separator."""
    prompt, *others = ids
    completion: list[int] = []
    labels: list[int] = []
    for step, separator, label in zip(others[::2], others[1::2], sample.labels, strict=True):
        completion += step + separator
        labels += [MASKED] * (len(completion) - len(labels))
        if label is not None and step + separator:
            labels[-1] = label
    most = sample.max_completion_length
    head = [*view.prefix_ids, *prompt]
    return Tokens([*head, *completion[:most]], [*[MASKED] * len(head), *labels[:most]])


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
