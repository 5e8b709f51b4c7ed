"""A dataset of the config as rows: which of them, in which order, from what."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import compress, islice
from typing import Any, Protocol

from ftl.config.split import Part
from ftl.errors import Problem
from ftl.sources.row import Reading, Row, Unread

_PROGRESS_ROWS = 1000


class Shelf(Protocol):
    """Whole splits: files that lie here, or a repository."""

    @property
    def label(self) -> str:
        """What the user calls it."""

    @property
    def revision(self) -> str | None:
        """The commit of a repository."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits; empty where rows are in no split, so that any name is theirs."""

    def unread(self, split: str, reading: Reading) -> Iterator[Unread]:
        """Every row of a split in order; what stops a file short goes to `reading.faults`."""

    def count(self, split: str) -> int | None:
        """The number of rows where that is known without reading them."""

    def identity(self, split: str) -> Any:  # Any: JSON
        """What decides the rows of a split: JSON with content hashes or a commit, never a path."""


@dataclass(frozen=True)
class Source:
    """The rows a dataset section asks for, in their own order."""

    shelf: Shelf
    parts: tuple[Part, ...]
    skip: int = 0
    shards: int | None = None
    shard: int = 0
    seed: int = 0
    _counted: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    @property
    def label(self) -> str:
        """What the user calls it."""
        return self.shelf.label

    @property
    def revision(self) -> str | None:
        """The commit of a Hub repository."""
        return self.shelf.revision

    def scan(self, *, start: int = 0, on_progress: Callable[[float], None] | None = None) -> Iterator[Row | Problem]:
        """The rows from the `start`-th on, with a Problem in the place of every broken one.

        Slices, then `skip`, then `shards` choose the rows; all keep the order they have in their files. A file that
        cannot be read on is a Problem too, and the next file follows. `on_progress` is told the share that is read.
        """
        reading = Reading()
        count = 0
        for count, (number, unread) in enumerate(islice(self._chosen(reading), start, None), start=1):
            yield from reading.take_faults()
            data = unread.read()
            yield data if isinstance(data, Problem) else Row(number, unread.where, data)
            if on_progress and count % _PROGRESS_ROWS == 0:
                on_progress(reading.share())
        faults = list(reading.take_faults())
        yield from faults
        if not count and not start and not faults:
            yield Problem(self.label, "holds no rows", "of the split and part that are asked for")
        if on_progress:
            on_progress(1.0)

    def num_rows(self) -> int | None:
        """How many rows `scan` gives; None where they would have to be read to know."""
        counts = [self.shelf.count(part.name) for part in self.parts]
        known = [count for count in counts if count is not None]
        return len(self._in_shard(self._num_before_shards(known))) if len(known) == len(counts) else None

    @property
    def must_be_counted(self) -> bool:
        """Whether all rows of a split must be read to know which of them `scan` gives first."""
        needed = [part.name for part in self.parts if part.needs_count or self.shards is not None]
        return any(self.shelf.count(name) is None for name in needed)

    @cached_property
    def _identity(self) -> Any:  # Any: JSON
        splits = [self.shelf.identity(part.name) for part in self.parts]
        slices = [[part.start, part.stop, part.is_percent] for part in self.parts]
        shards = [self.shards, self.shard, self.seed] if self.shards else None
        return {"splits": splits, "slices": slices, "skip": self.skip, "shards": shards}

    def identity(self) -> Any:  # Any: JSON
        """What decides the rows, as JSON: the same rows wherever they lie have the same."""
        return self._identity

    def _chosen(self, reading: Reading) -> Iterator[tuple[int, Unread]]:
        rows = islice(self._sliced(reading), self.skip, None)
        if self.shards is None:
            return rows
        num_rows = self._num_before_shards([self._count(part.name) for part in self.parts])
        return compress(rows, self._mask(num_rows))

    def _sliced(self, reading: Reading) -> Iterator[tuple[int, Unread]]:
        for index, part in enumerate(self.parts):
            first, stop = part.bounds(self._count(part.name) if part.needs_count else None)
            reading.begin_part(index, len(self.parts))
            yield from islice(enumerate(self.shelf.unread(part.name, reading)), first, stop)

    def _count(self, split: str) -> int:
        """The rows of a split, counted by reading when there is no other way; once."""
        if split not in self._counted:
            known = self.shelf.count(split)
            self._counted[split] = sum(1 for _ in self.shelf.unread(split, Reading())) if known is None else known
        return self._counted[split]

    def _num_before_shards(self, counts: list[int]) -> int:
        bounds = [part.bounds(count) for part, count in zip(self.parts, counts, strict=True)]
        return max(0, sum(max(0, (stop or 0) - first) for first, stop in bounds) - self.skip)

    def _in_shard(self, num_rows: int) -> range:
        """The places of our shard among the shuffled rows: shards differ by one row at most."""
        if self.shards is None:
            return range(num_rows)
        size, rest = divmod(num_rows, self.shards)
        first = size * self.shard + min(self.shard, rest)
        return range(first, first + size + (self.shard < rest))

    def _mask(self, num_rows: int) -> bytearray:
        """One byte a row: whether it is in our shard. Python's own generator, so that every machine agrees."""
        shuffled = list(range(num_rows))
        random.Random(self.seed).shuffle(shuffled)
        mask = bytearray(num_rows)
        for place in self._in_shard(num_rows):
            mask[shuffled[place]] = 1
        return mask
