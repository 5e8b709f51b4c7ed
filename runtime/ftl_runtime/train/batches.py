"""Batches in an order that depends on seed and epoch alone, dealt out to the ranks."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Sampler

from ftl_runtime.context import Device


class Rows(Protocol):
    """A dataset: numbered rows, of what the collator takes."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> Any:  # Any: between the dataset and its collator
        ...


class EpochOrder(Protocol):
    """The numbers of all rows, in an order that depends on the epoch."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[int]: ...

    def set_epoch(self, epoch: int) -> None: ...


class RankBatches(Sampler[list[int]]):
    """The micro-batches of one rank: each global batch is cut into one piece a rank.

    With several ranks the last batch of an epoch is filled up from its start, so that all take the same number.
    """

    def __init__(self, order: EpochOrder, size: int, rank: int, num_ranks: int) -> None:
        self.order = order
        self._size = size
        self._rank = rank
        self._num_ranks = num_ranks

    def __len__(self) -> int:
        return -(-len(self.order) // (self._size * self._num_ranks))

    def __iter__(self) -> Iterator[list[int]]:
        indices = list(self.order)
        whole = self._size * self._num_ranks
        if self._num_ranks > 1:
            indices = list(itertools.islice(itertools.cycle(indices), len(self) * whole))
        for start in range(self._rank * self._size, len(indices), whole):
            yield indices[start : start + self._size]


class Loaders:
    """The data of a training, ready to iterate."""

    def __init__(
        self,
        train: Rows,
        eval: Rows | None,
        order: EpochOrder,
        collator: Callable[[list[Any]], dict[str, Any]],  # Any: rows as the dataset gives them
        *,
        batch_size: int,
        eval_batch_size: int,
        device: Device,
        takes_positions: bool,
    ) -> None:
        """`takes_positions` tells whether the model's forward has position_ids."""
        self.collator = collator
        self.takes_positions = takes_positions
        self._order = order
        self._pin_memory = device.kind == "cuda"
        self.train = self._loader(train, RankBatches(order, batch_size, device.rank, device.num_ranks))
        self.eval: DataLoader[Any] | None = None
        if eval is not None and len(eval):
            # Every rank takes every so-manieth batch; none is repeated, because sums are weighted by tokens.
            batches = list(_chunks(len(eval), eval_batch_size))
            self.eval = self._loader(eval, batches[device.rank :: device.num_ranks])

    def set_epoch(self, epoch: int) -> None:
        self._order.set_epoch(epoch)

    def _loader(self, dataset: Rows, batches: Any) -> DataLoader[Any]:  # Any: torch's own is too narrow
        # A loader without a generator of its own draws a number from the global one at each epoch: training would
        # then depend on how often it was evaluated.
        return DataLoader(
            dataset,  # type: ignore[arg-type]  # torch asks only for len and [], but says Dataset
            batch_sampler=batches,
            collate_fn=self.collator,
            generator=torch.Generator().manual_seed(0),
            pin_memory=self._pin_memory,
        )


def _chunks(length: int, size: int) -> Iterator[list[int]]:
    for start in range(0, length, size):
        yield list(range(start, min(start + size, length)))
