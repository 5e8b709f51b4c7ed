"""Rows to tokens, in the order of the file, each broken row with its problem."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ftl.errors import Problem
from ftl.formats.example import Example, Pair, Preference, Rendered, RowError, Sample
from ftl.inspect.fit import Parts
from ftl.sources import Row
from ftl.tokens import Recipe, TokenizerView, encode_any

_BATCH_ROWS = 500
_BATCH_CHARS = 500_000  # rows may be whole books, and a batch is in memory at once


@dataclass(frozen=True)
class Sampled:
    """A row and its tokens."""

    number: int
    """The row's place in the file, from 0."""
    where: str
    sample: Sample
    parts: Parts


@dataclass(frozen=True)
class Read:
    """A row that was rendered and not tokenised."""

    number: int
    where: str
    rendered: Rendered


@dataclass(frozen=True)
class Broken:
    """A row that cannot be used."""

    number: int
    problem: Problem


Numbered = tuple[int, Row | Problem]


def numbered(rows: Iterable[Row | Problem]) -> Iterator[Numbered]:
    """Each row with its place in the file; one that cannot be read has the place after the row before it."""
    number = -1
    for row in rows:
        number = row.number if isinstance(row, Row) else number + 1
        yield number, row


def walk(rows: Iterable[Numbered], recipe: Recipe, view: TokenizerView) -> Iterator[Sampled | Broken]:
    """What every row becomes. Reads some hundred rows ahead, because many are tokenised at once."""
    batch: list[Sampled | Broken] = []
    num_chars = 0
    for walked in _samples(rows, recipe):
        batch.append(walked)
        num_chars += _num_chars(walked.sample) if isinstance(walked, Sampled) else 0
        if len(batch) == _BATCH_ROWS or num_chars >= _BATCH_CHARS:
            yield from _tokenise(batch, view)
            batch, num_chars = [], 0
    yield from _tokenise(batch, view)


def walk_untokenised(rows: Iterable[Numbered], recipe: Recipe) -> Iterator[Read | Broken]:
    """What every row is before a chat template and a tokenizer see it."""
    for number, row in rows:
        if isinstance(row, Problem):
            yield Broken(number, row)
            continue
        try:
            yield Read(number, row.where, recipe.read(row.data))
        except RowError as e:
            yield Broken(number, Problem(row.where, str(e)))


def _samples(rows: Iterable[Numbered], recipe: Recipe) -> Iterator[Sampled | Broken]:
    for number, row in rows:
        if isinstance(row, Problem):
            yield Broken(number, row)
            continue
        try:
            yield Sampled(number, row.where, recipe.sample(row.data), ())
        except RowError as e:
            yield Broken(number, Problem(row.where, str(e)))


def _tokenise(batch: list[Sampled | Broken], view: TokenizerView) -> Iterator[Sampled | Broken]:
    parts = iter(encode_any([walked.sample for walked in batch if isinstance(walked, Sampled)], view))
    for walked in batch:
        yield replace(walked, parts=next(parts)) if isinstance(walked, Sampled) else walked


def _num_chars(sample: Sample) -> int:
    match sample:
        case Example():
            return sum(len(segment.text) for segment in sample.segments)
        case Pair():
            return _num_chars(sample.chosen) + _num_chars(sample.rejected)
        case Preference():
            return 2 * len(sample.prompt) + len(sample.chosen) + len(sample.rejected)
    return 0
