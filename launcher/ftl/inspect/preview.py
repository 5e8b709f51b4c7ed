"""Rows as the model sees them: each token with its text and its label."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ftl.config.data import DataSection
from ftl.formats.example import Example, Judged, Pair, Preference, Sample, Steps
from ftl.inspect.fit import fit, too_long_sentence
from ftl.inspect.tokentext import TokenTexts
from ftl.inspect.walk import Broken, Sampled
from ftl.tokens import MASKED, Tokens


@dataclass(frozen=True)
class Piece:
    """A token and the bytes it stands for."""

    text: bytes
    id: int
    label: int

    @property
    def is_trained(self) -> bool:
        return self.label != MASKED


Pieces = tuple[Piece, ...]


@dataclass(frozen=True)
class PreviewRow:
    """A row of a dataset, and what it gives: samples, or the reason why there are none."""

    row: int
    """Its place in the file, from 0."""
    where: str
    samples: tuple[Mapping[str, Pieces], ...] = ()
    """Each sample's token sequences by name: chosen and rejected, or one without a name."""
    texts: Mapping[str, str | bool] | None = None
    """Preference and unpaired data: the texts before tokenisation."""
    has_step_labels: bool = False
    """The labels are those of steps, 0 or 1, rather than the tokens themselves."""
    is_scored: bool = False
    """A reward model learns to score the texts as a whole: no token of them is trained to be written."""
    dropped: str | None = None
    error: str | None = None


def preview_row(walked: Sampled | Broken, texts: TokenTexts, data: DataSection) -> PreviewRow:
    """What the row becomes under the config's length rules."""
    if isinstance(walked, Broken):
        problem = walked.problem
        return PreviewRow(walked.number, problem.where, error=str(problem))
    sample = walked.sample
    fitted = fit(sample, walked.parts, data)
    if fitted.dropped:
        return _left_out(walked, fitted.dropped, data)
    names = _names(sample)
    sources = _sources(sample)
    whole = [_pieces(tokens, texts, text) for tokens, text in zip(walked.parts, sources, strict=True)]
    starts = [0] * len(whole)
    samples = []
    for parts in fitted.samples:
        stops = [start + len(tokens.ids) for start, tokens in zip(starts, parts, strict=True)]
        cut = (pieces[start:stop] for pieces, start, stop in zip(whole, starts, stops, strict=True))
        samples.append(dict(zip(names, cut, strict=True)))
        starts = stops
    return PreviewRow(
        walked.number,
        walked.where,
        tuple(samples),
        _texts(sample, samples[0] if fitted.is_truncated else None),
        isinstance(sample, Steps),
        isinstance(sample, Pair),
    )


def extent(pieces: Pieces, row: PreviewRow) -> str:
    """How many tokens it is, and what is learnt from them."""
    if row.is_scored:
        return f"{len(pieces):,} tokens, scored as a whole"
    return f"{len(pieces):,} tokens, {sum(piece.is_trained for piece in pieces):,} trained"


def row_json(row: PreviewRow, dataset: int, *, ids: bool) -> dict[str, Any]:  # Any: JSON
    """The object that `ftl preview --json` prints for the row."""
    head = {"dataset": dataset, "row": row.row}
    if row.error is not None:
        return {**head, "error": row.error}
    if row.dropped is not None:
        return {**head, "dropped": row.dropped}
    samples = [_sample_json(sample, row, ids=ids) for sample in row.samples]
    return {**head, **samples[0]} if len(samples) == 1 else {**head, "samples": samples}


def runs(pieces: Pieces, *, by_label: bool = False) -> Iterator[tuple[Pieces, int | bool | None]]:
    """Neighbours that are trained alike, and whether they are; `by_label` the label itself, None where masked."""

    def mark(piece: Piece) -> int | bool | None:
        return (piece.label if piece.is_trained else None) if by_label else piece.is_trained

    for key, run in groupby(pieces, mark):
        yield tuple(run), key


def characters(pieces: Sequence[Piece]) -> Iterator[tuple[str, Pieces]]:
    """Texts of whole characters, each with the tokens that make it up; bytes that are none as \\xe2."""
    waiting: list[Piece] = []
    for piece in pieces:
        waiting.append(piece)
        joined = _joined(waiting)
        try:
            text = joined.decode()
        except UnicodeDecodeError as e:
            if e.reason == "unexpected end of data":
                continue
            text = joined.decode(errors="backslashreplace")
        yield text, tuple(waiting)
        waiting = []
    if waiting:
        yield _joined(waiting).decode(errors="backslashreplace"), tuple(waiting)


def _sample_json(sample: Mapping[str, Pieces], row: PreviewRow, *, ids: bool) -> dict[str, Any]:
    (first, *_) = sample.values()
    if row.texts is not None:
        shown: dict[str, Any] = dict(row.texts)
    elif len(sample) > 1:
        shown = {name: _joined(pieces).decode(errors="replace") for name, pieces in sample.items()}
    else:
        key = "label" if row.has_step_labels else "train"
        shown = {"segments": [{**_text(run), key: mark} for run, mark in runs(first, by_label=row.has_step_labels)]}
    if ids:
        ids_of = {name: [piece.id for piece in pieces] for name, pieces in sample.items()}
        labels_of = {name: [piece.label for piece in pieces] for name, pieces in sample.items()}
        is_one = len(sample) == 1
        shown["input_ids"] = next(iter(ids_of.values())) if is_one else ids_of
        shown["labels"] = next(iter(labels_of.values())) if is_one else labels_of
    return shown


def _text(pieces: Pieces) -> dict[str, str]:
    joined = _joined(pieces)
    try:
        return {"text": joined.decode()}
    except UnicodeDecodeError:  # a cut inside a character
        return {"bytes_hex": joined.hex()}


def _left_out(walked: Sampled, dropped: str, data: DataSection) -> PreviewRow:
    if dropped == "too short":
        shortest = min(len(tokens.ids) for tokens in walked.parts)
        return PreviewRow(walked.number, walked.where, dropped=f"{shortest} tokens, fewer than {data.min_sample_len}")
    reason = too_long_sentence(walked.parts, data)
    if data.excess_length == "raise":
        return PreviewRow(walked.number, walked.where, error=reason)
    return PreviewRow(walked.number, walked.where, dropped=reason)


def _pieces(tokens: Tokens, texts: TokenTexts, source: str) -> Pieces:
    shown = zip(texts.pieces(tokens.ids, source), tokens.ids, tokens.labels, strict=True)
    return tuple(Piece(text, id, label) for text, id, label in shown)


def _names(sample: Sample) -> tuple[str, ...]:
    return ("chosen", "rejected") if isinstance(sample, Preference | Pair) else ("",)


def _sources(sample: Sample) -> tuple[str, ...]:
    """The texts that the token sequences were made of; nothing where there was none."""
    match sample:
        case Example():
            return ("".join(segment.text for segment in sample.segments),)
        case Preference():
            return (sample.prompt + sample.chosen, sample.prompt + sample.rejected)
        case Judged():
            return (sample.prompt + sample.completion,)
        case Pair():
            return (*_sources(sample.chosen), *_sources(sample.rejected))
        case Steps():
            return (sample.prompt + "".join(step + sample.separator for step in sample.steps),)
    return ("",)


def _texts(sample: Sample, truncated: Mapping[str, Pieces] | None) -> dict[str, str | bool] | None:
    """The texts of preference and unpaired data; of answers that were truncated what is left of them."""
    if isinstance(sample, Preference):
        chosen, rejected = sample.chosen, sample.rejected
        if truncated is not None:
            chosen, rejected = _trained_text(truncated["chosen"]), _trained_text(truncated["rejected"])
        return {"prompt": sample.prompt, "chosen": chosen, "rejected": rejected}
    if isinstance(sample, Judged):
        completion = sample.completion if truncated is None else _trained_text(truncated[""])
        return {"prompt": sample.prompt, "completion": completion, "label": sample.label}
    return None


def _trained_text(pieces: Pieces) -> str:
    return _joined(piece for piece in pieces if piece.is_trained).decode(errors="replace")


def _joined(pieces: Iterable[Piece]) -> bytes:
    return b"".join(piece.text for piece in pieces)
