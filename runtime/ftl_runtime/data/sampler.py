"""The order in which rows are drawn, and which rank takes which."""

from collections.abc import Iterator, Sequence

import numpy as np


class BatchOrder:
    """A random order of the rows that depends on (seed, epoch) alone.

    A resumed run sets the epoch and skips the batches it has had; the rest is what it would have been.
    """

    def __init__(self, num_rows: int, seed: int) -> None:
        self._num_rows = num_rows
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each epoch, which counts from 0."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._num_rows

    def __iter__(self) -> Iterator[int]:
        return iter(np.random.default_rng((self._seed, self._epoch)).permutation(self._num_rows).tolist())


class LengthOrder:
    """As BatchOrder, but the rows of a batch have about one length, so that little of it is padding.

    Random chunks of 50 batches are sorted by length; their batches come in random order, the longest of all first, so
    that memory which does not suffice shows at once.
    """

    _CHUNK_BATCHES = 50

    def __init__(self, lengths_R: np.ndarray, batch_size: int, seed: int) -> None:
        """`batch_size` counts the rows of all ranks."""
        self._lengths_R = lengths_R
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """As of BatchOrder."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths_R)

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self._seed, self._epoch))
        shuffled_R = rng.permutation(len(self))
        chunk_rows = self._CHUNK_BATCHES * self._batch_size
        chunks = np.split(shuffled_R, range(chunk_rows, len(self), chunk_rows))
        sorted_R = np.concatenate([chunk[np.argsort(-self._lengths_R[chunk], kind="stable")] for chunk in chunks])
        num_whole = len(self) // self._batch_size
        whole_BN = sorted_R[: num_whole * self._batch_size].reshape(num_whole, self._batch_size)
        order_B = rng.permutation(num_whole)
        if num_whole:
            longest = int(self._lengths_R[whole_BN[order_B, 0]].argmax())
            order_B[[0, longest]] = order_B[[longest, 0]]
        return iter([*whole_BN[order_B].reshape(-1).tolist(), *sorted_R[num_whole * self._batch_size :].tolist()])


class GivenOrder:
    """The rows one after the other, every epoch alike."""

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows

    def set_epoch(self, epoch: int) -> None:
        """As of BatchOrder; all epochs are the same."""

    def __len__(self) -> int:
        return self._num_rows

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._num_rows))


class ReadingOrder:
    """The rows one after the other, once: those of a stream."""

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows

    def set_epoch(self, epoch: int) -> None:
        assert epoch == 0, "a stream has one epoch"

    def __len__(self) -> int:
        return self._num_rows

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._num_rows))


def deal(costs: Sequence[int], num_ranks: int) -> list[list[int]]:
    """For each rank the places of its rows in a global batch: equally many, of about equal cost together.

    The costliest row first, each to the rank with the least so far. A single rank has all, in order.
    """
    size, rest = divmod(len(costs), num_ranks)
    assert not rest, "a global batch is a whole number of micro-batches"
    hands: list[list[int]] = [[] for _ in range(num_ranks)]
    sums = [0] * num_ranks
    for place in sorted(range(len(costs)), key=lambda place: (-costs[place], place)):
        rank = min((r for r in range(num_ranks) if len(hands[r]) < size), key=lambda r: (sums[r], r))
        hands[rank].append(place)
        sums[rank] += costs[place]
    return [sorted(hand) for hand in hands]
