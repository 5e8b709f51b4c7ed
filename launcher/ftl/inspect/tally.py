"""Counts over the rows of a dataset, in memory that hardly grows with them."""

import hashlib
from array import array
from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby

from ftl.formats.example import Example, Sample
from ftl.inspect.fit import Fitted, Parts
from ftl.tokens import MASKED

_NUM_BUCKETS = 256


class Lengths:
    """How many samples have how many tokens."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, length: int) -> None:
        self._counts[length] += 1

    @property
    def mean(self) -> float:
        return sum(length * count for length, count in self._counts.items()) / max(self._counts.total(), 1)

    @property
    def longest(self) -> int:
        return max(self._counts, default=0)

    def share_within(self, limit: int) -> float:
        """The share of the samples that have at most so many tokens."""
        return sum(count for length, count in self._counts.items() if length <= limit) / max(self._counts.total(), 1)

    def percentile(self, percent: float) -> int:
        """The least length that at least so many percent of the samples do not exceed; 0 without samples."""
        wanted = self._counts.total() * percent / 100
        seen = 0
        for length in sorted(self._counts):
            seen += self._counts[length]
            if seen >= wanted:
                return length
        return 0


class Digests:
    """Which samples have been seen: 8 bytes each. Two different ones are taken for one with chance n^2 / 2^65."""

    def __init__(self) -> None:
        self._buckets = [array("Q") for _ in range(_NUM_BUCKETS)]

    def add(self, parts: Parts) -> None:
        value = int.from_bytes(digest_of(parts), "little")
        self._buckets[value % _NUM_BUCKETS].append(value)

    @property
    def num_duplicates(self) -> int:
        """Samples that are the same as an earlier one."""
        return sum(len(bucket) - len(set(bucket)) for bucket in self._buckets)

    def num_shared(self, other: "Digests") -> int:
        """Different samples that are in both."""
        return sum(len(set(a) & set(b)) for a, b in zip(self._buckets, other._buckets, strict=True))


def digest_of(parts: Parts) -> bytes:
    """Eight bytes of a hash over the tokens and labels of a sample."""
    digest = hashlib.blake2b(digest_size=8)
    for tokens in parts:
        digest.update(array("q", tokens.ids).tobytes())
        digest.update(array("q", tokens.labels).tobytes())
    return digest.digest()


@dataclass
class Tally:
    """What became of the rows so far."""

    rows: int = 0
    broken: int = 0
    """Rows that cannot be read or rendered; each is a problem."""
    samples: int = 0
    """What is trained on: a row may give several, or none."""
    tokens: int = 0
    trained: int = 0
    """Tokens that are trained; `tokens` and this count what the length rules leave."""
    truncated: int = 0
    split: int = 0
    too_long: int = 0
    """Rows dropped because they are longer than sequence_len."""
    too_short: int = 0
    repeated: int = 0
    """Samples left out because exact deduplication has found them before, in whatever dataset."""
    untrained: int = 0
    """Samples in which nothing is trained."""
    untrained_turns: int = 0
    """Trained turns of which truncation leaves nothing."""
    trains_eos: bool = False
    lengths: Lengths = field(default_factory=Lengths)
    """Of samples before any length rule."""
    digests: Digests = field(default_factory=Digests)

    def add_repeated(self, parts: Parts) -> None:
        """Count a sample that is left out as a duplicate."""
        self.lengths.add(max(len(tokens.ids) for tokens in parts))
        self.digests.add(parts)
        self.repeated += 1

    def add(self, sample: Sample, parts: Parts, fitted: Fitted, ends: frozenset[int]) -> None:
        """Count a sample and what is left of it; `ends` are the tokens that end a text or a turn."""
        self.lengths.add(max(len(tokens.ids) for tokens in parts))
        self.digests.add(parts)
        self.too_long += fitted.dropped == "too long"
        self.too_short += fitted.dropped == "too short"
        self.truncated += fitted.is_truncated
        self.split += fitted.is_split
        self.samples += len(fitted.samples)
        for left in fitted.samples:
            trained = 0
            for tokens in left:
                self.tokens += len(tokens.ids)
                trained += len(tokens.labels) - tokens.labels.count(MASKED)
                self.trains_eos = self.trains_eos or not ends.isdisjoint(tokens.labels)
            self.trained += trained
            self.untrained += not trained
        if fitted.is_truncated and isinstance(sample, Example):
            (tokens,) = fitted.samples[0]
            self.untrained_turns += _num_trained_runs(sample) - _num_runs(tokens.labels)


def _num_trained_runs(example: Example) -> int:
    return sum(train for train, _ in groupby(segment.train for segment in example.segments if segment.text))


def _num_runs(labels: list[int]) -> int:
    return sum(train for train, _ in groupby(label != MASKED for label in labels))
