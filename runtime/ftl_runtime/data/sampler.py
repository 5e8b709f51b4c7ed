"""The order in which rows are drawn."""

from collections.abc import Iterator

import numpy as np


class BatchOrder:
    """A sampler for torch's DataLoader: a random order of the rows that depends on (seed, epoch) alone.

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
