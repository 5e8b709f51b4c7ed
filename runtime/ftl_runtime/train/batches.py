"""Batches in an order that depends on seed and epoch alone, dealt out to the ranks."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Sampler

from ftl.errors import ConfigError
from ftl_runtime.context import Device
from ftl_runtime.data.sampler import deal
from ftl_runtime.data.stream import Stream


class Rows(Protocol):
    """A dataset: numbered rows, of what the collator takes."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> Any:  # Any: between the dataset and its collator
        ...

    def costs(self, rows: Sequence[int], /) -> list[int]:
        """What it takes to train each of these rows, in any unit. Asked for every batch, before its rows."""
        ...


class EpochOrder(Protocol):
    """The numbers of all rows, in an order that depends on the epoch."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[int]: ...

    def set_epoch(self, epoch: int) -> None: ...


class GlobalBatches(Sampler[list[int]]):
    """The batches of all ranks together.

    With several ranks the last batch of an epoch is filled up from its start, so that all take the same number; with
    `drop_last` it is left out where it is not full.
    """

    def __init__(self, order: EpochOrder, size: int, num_ranks: int, *, drop_last: bool = False) -> None:
        self._order = order
        self._num_ranks = num_ranks
        self._drop_last = drop_last
        self._whole = size * num_ranks

    def __len__(self) -> int:
        return len(self._order) // self._whole if self._drop_last else -(-len(self._order) // self._whole)

    def __iter__(self) -> Iterator[list[int]]:
        if self._drop_last:
            rows = iter(self._order)
            for _ in range(len(self)):
                yield list(itertools.islice(rows, self._whole))
            return
        num_missing = len(self) * self._whole - len(self._order) if self._num_ranks > 1 else 0
        rows = itertools.chain(self._order, itertools.islice(itertools.cycle(self._order), num_missing))
        while batch := list(itertools.islice(rows, self._whole)):
            yield batch


class RankShare:
    """A dataset as one rank sees it: asked for a global batch, it gives the rows of this rank.

    The rows are dealt so that the ranks, which wait for each other, have about the same work; the batch as a whole,
    and so the gradient, is the same however it is dealt.
    """

    def __init__(self, rows: Rows, rank: int, num_ranks: int) -> None:
        self._rows = rows
        self._rank = rank
        self._num_ranks = num_ranks

    def __len__(self) -> int:
        return len(self._rows)

    def __getitems__(self, batch: Sequence[int]) -> list[Any]:  # Any: as in Rows
        """What torch's DataLoader calls with a whole batch."""
        mine = deal(self._rows.costs(batch), self._num_ranks)[self._rank]
        return [self._rows[batch[place]] for place in mine]


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
        drop_last: bool = False,
        in_step: bool = False,
    ) -> None:
        """With `in_step` all ranks evaluate as many batches: a model in shards computes on all of them or on none.

        Raises ConfigError where `drop_last` leaves no batch to train on.
        """
        self.collator = collator
        self._train = train
        self._order = order
        self._rows_per_batch = batch_size * device.num_copies
        self._pin_memory = device.kind == "cuda"
        batches = GlobalBatches(order, batch_size, device.num_copies, drop_last=drop_last)
        if not len(batches):
            raise ConfigError(
                f"dataloader_drop_last: there are {len(order)} rows, and a batch of all ranks has "
                f"{self._rows_per_batch}; remove it, or lower micro_batch_size"
            )
        self.train = self._loader(RankShare(train, device.copy, device.num_copies), batches)
        self.eval: DataLoader[Any] | None = None
        self.num_eval_batches = 0
        """So many count; one more may be there to keep step."""
        if eval is not None and len(eval):
            # Every rank takes every so-manieth batch; none is repeated, because sums are weighted by tokens.
            chunks = list(_chunks(len(eval), eval_batch_size))
            mine = chunks[device.copy :: device.num_copies]
            self.num_eval_batches = len(mine)
            if in_step and len(mine) < -(-len(chunks) // device.num_copies):
                mine = [*mine, chunks[0]]
            self.eval = self._loader(eval, mine)

    def set_epoch(self, epoch: int) -> None:
        self._order.set_epoch(epoch)

    def stream_mark(self, num_micro_batches: int) -> dict[str, Any] | None:  # Any: JSON
        """From where a stream is read on after so many micro-batches; None for rows that are all there."""
        if not isinstance(self._train, Stream):
            return None
        return asdict(self._train.mark(num_micro_batches * self._rows_per_batch))

    def _loader(self, dataset: Rows | RankShare, batches: Any) -> DataLoader[Any]:  # Any: torch's own is too narrow
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
