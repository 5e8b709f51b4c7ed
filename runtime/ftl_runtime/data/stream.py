"""Texts that are read, tokenised and packed while training runs, and found again at the exact row after a kill.

A stream is made of blocks: so many texts, drawn from the sources by weight, cut to sequence_len, put into rows, and
the rows shuffled. A block is a function of the seed, its number, and the place in every source at which it begins.
These places are all that a checkpoint needs: the block is built again, and its rows that were trained are passed over.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ftl.config.data import DataSection
from ftl.contract import DatasetUse
from ftl.errors import ConfigError, Problem
from ftl.formats.example import Example, TokenRow
from ftl.sources import Row, Source
from ftl.tokens import Recipe, TokenizerView, Tokens, encode, num_pieces
from ftl_runtime.data.cache import batches, size_of
from ftl_runtime.data.dataset import Document, DocumentRow, Open, identity_of
from ftl_runtime.data.pack import one_per_row, pack
from ftl_runtime.data.samples import Emit, sample_of

KEY = "pretraining_dataset"
_BLOCK_SIZE = 8_000_000  # characters: a few seconds of tokenising, and tens of MB


@dataclass(frozen=True)
class Mark:
    """Where a block begins."""

    row: int = 0
    """The number of its first row in the stream."""
    block: int = 0
    passes: tuple[int, ...] = ()
    """How often each source has been read to its end."""
    places: tuple[int, ...] = ()
    """The next row of each source."""
    identities: tuple[str, ...] = ()
    """Of the sources: a place in other data is another text."""

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Self:  # Any: JSON
        """The mark that was written as JSON, as `dataclasses.asdict` gives it."""
        lists = {key: tuple(record[key]) for key in ("passes", "places", "identities")}
        return cls(record["row"], record["block"], **lists)


@dataclass(frozen=True)
class _Block:
    mark: Mark
    rows: tuple[DocumentRow, ...]

    @property
    def stop(self) -> int:
        return self.mark.row + len(self.rows)


class Stream:
    """Numbered rows without an end, of which a training takes the first `num_rows`; asked for in ascending order.

    The next block is made ready in a thread of its own.
    """

    def __init__(self, blocks: Iterator[_Block], start: Mark, num_rows: int, used: tuple[DatasetUse, ...]) -> None:
        self.used = used
        self._source = blocks
        self._start = start
        self._num_rows = num_rows
        self._blocks: deque[_Block] = deque()
        self._builder = ThreadPoolExecutor(1, thread_name_prefix="stream")
        self._next: Future[_Block] | None = None

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, row: int) -> DocumentRow:
        """A row of the batch whose costs were asked for last."""
        block = next(block for block in self._blocks if block.mark.row <= row < block.stop)
        return block.rows[row - block.mark.row]

    def costs(self, rows: Sequence[int]) -> list[int]:
        """Of each row the squares of its documents' lengths, summed. Rows before these are let go.

        Raises ConfigError for rows before those that the stream was opened at.
        """
        if min(rows) < self._start.row:
            given = f"the training asks for row {min(rows)}, and its checkpoint goes on at row {self._start.row}"
            allowed = "a stream goes on with the micro_batch_size, gradient_accumulation_steps and ranks it began with"
            raise ConfigError(Problem(KEY, given, allowed, "set them back, or start a new run"))
        while not self._blocks or self._blocks[-1].stop <= max(rows):
            self._blocks.append(self._take())
        while self._blocks[0].stop <= min(rows):
            self._blocks.popleft()
        return [sum(len(document.ids) ** 2 for document in self[row]) for row in rows]

    def mark(self, row: int) -> Mark:
        """From where to read on, for a training that takes `row` next."""
        return max((block.mark for block in self._blocks if block.mark.row <= row), key=_row, default=self._start)

    def _take(self) -> _Block:
        ready = self._next or self._builder.submit(next, self._source)
        block = ready.result()
        self._next = self._builder.submit(next, self._source)
        return block


def open_stream(
    data: DataSection,
    view: TokenizerView,
    *,
    seed: int,
    open: Open,
    num_rows: int,
    start: Mark | None,
    emit: Emit,
) -> Stream:
    """The stream of `pretraining_dataset`, from the beginning or from a mark of the same stream.

    Raises ConfigError for data that is not what the mark was made of; broken rows are told when they are reached.
    """
    sources = [open(dataset) for dataset in data.pretraining_dataset]
    identities = tuple(identity_of(source) for source in sources)
    if start is None:
        zeros = (0,) * len(sources)
        start = Mark(passes=zeros, places=zeros, identities=identities)
    elif start.identities != identities:
        given = "is not the data that the checkpoint was trained on, so its place there is lost"
        raise ConfigError(Problem(KEY, given, remedy="name the same files, or the same `revision`; or train anew"))
    readers = [
        _Reader(f"{KEY}.{i}", source, Recipe.of(dataset, data, "sft", view), start.passes[i], start.places[i], emit)
        for i, (dataset, source) in enumerate(zip(data.pretraining_dataset, sources, strict=True))
    ]
    used = tuple(
        DatasetUse(key=reader.key, label=source.label, revision=source.revision, identity=identity)
        for reader, source, identity in zip(readers, sources, identities, strict=True)
    )
    emit("data", {"datasets": [use.model_dump(mode="json") for use in used]})
    return Stream(_blocks(readers, data, view, seed, start), start, num_rows, used)


class _Reader:
    """The samples of one source, over and over."""

    def __init__(self, key: str, source: Source, recipe: Recipe, num_passes: int, place: int, emit: Emit) -> None:
        self.key = key
        self.num_passes = num_passes
        self.place = place
        self._source = source
        self._recipe = recipe
        self._emit = emit
        self._rows: Iterator[Row | Problem] = source.scan(start=place)

    def read(self) -> Example | TokenRow:
        """The next sample. Raises ConfigError with the place of a broken row."""
        row = next(self._rows, None)
        while row is None:
            self._start_over()
            row = next(self._rows, None)
        sample = sample_of(row, self._recipe)
        assert isinstance(sample, Example | TokenRow | Problem), "config.rules lets only plain texts be streamed"
        if isinstance(sample, Problem):
            raise ConfigError(sample)
        self.place += 1
        return sample

    def _start_over(self) -> None:
        if not self.num_passes:
            which = f"{self.key}: {self._source.label}"
            message = f"{which}: all {self.place} rows are read; it is read again from its start until max_steps"
            self._emit("warning", {"message": message})
        self.num_passes, self.place = self.num_passes + 1, 0
        self._rows = self._source.scan()


def _blocks(
    readers: Sequence[_Reader], data: DataSection, view: TokenizerView, seed: int, mark: Mark
) -> Iterator[_Block]:
    """The blocks from `mark` on, without an end. Raises ConfigError when a whole pass gives no row."""
    passes_before = mark.passes
    while True:
        rng = np.random.default_rng((seed, mark.block))
        documents = _documents(_draw(readers, data, rng), data, view)
        rows = _rows(documents, data, rng)
        yield _Block(mark, rows)
        passes = tuple(reader.num_passes for reader in readers)
        places = tuple(reader.place for reader in readers)
        mark = Mark(mark.row + len(rows), mark.block + 1, passes, places, mark.identities)
        if rows:
            passes_before = passes
        elif all(now > before + 1 for now, before in zip(passes, passes_before, strict=True)):
            given = f"no text has {data.min_sample_len} tokens or more"
            raise ConfigError(Problem(KEY, given, remedy="check `text_column`"))


def _draw(readers: Sequence[_Reader], data: DataSection, rng: np.random.Generator) -> list[Example | TokenRow]:
    """The samples of a block, each from a source drawn by its weight."""
    weights = np.array([dataset.weight or 1.0 for dataset in data.pretraining_dataset])
    drawn = rng.choice(len(readers), data.pretrain_multipack_buffer_size, p=weights / weights.sum())
    samples: list[Example | TokenRow] = []
    size = 0
    for source in drawn.tolist():
        samples.append(readers[source].read())
        size += size_of(samples[-1])
        if size >= _BLOCK_SIZE:
            break
    return samples


def _documents(samples: list[Example | TokenRow], data: DataSection, view: TokenizerView) -> list[Document]:
    """The texts in reading order, those that are too long in pieces."""
    found: list[Document] = []
    for batch in batches(samples):
        for tokens in encode(batch, view):
            if len(tokens.ids) >= data.min_sample_len:
                found += _pieces(tokens, data)
    return found


def _pieces(tokens: Tokens, data: DataSection) -> Iterator[Document]:
    ids, labels = np.array(tokens.ids, np.int32), np.array(tokens.labels, np.int32)
    for number in range(num_pieces(len(ids), data.sequence_len, data.min_sample_len)):
        start, stop = number * data.sequence_len, (number + 1) * data.sequence_len
        yield Document(ids[start:stop], labels[start:stop])


def _rows(documents: list[Document], data: DataSection, rng: np.random.Generator) -> tuple[DocumentRow, ...]:
    """The documents in rows. In random order, or in that of each row's first document."""
    if not documents:
        return ()
    lengths_D = np.array([len(document.ids) for document in documents])
    is_filled = data.pretraining_sample_concatenation or data.sample_packing
    packing = pack(lengths_D, data.sequence_len) if is_filled else one_per_row(len(documents))
    members = [sorted(row.tolist()) for row in np.split(packing.order_D, packing.row_offsets_R1[1:-1])]
    members = [members[row] for row in rng.permutation(len(members))] if data.shuffle else sorted(members)
    rows = [tuple(documents[d] for d in row) for row in members]
    return tuple(rows if data.pretrain_multipack_attn else (_joined(row) for row in rows))


def _joined(row: DocumentRow) -> DocumentRow:
    """One document of all, each of which then sees those before it."""
    ids = np.concatenate([document.ids for document in row])
    return (Document(ids, np.concatenate([document.labels for document in row])),)


def _row(mark: Mark) -> int:
    return mark.row
