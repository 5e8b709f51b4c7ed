"""The ranks of one training, as one: sums over them, a value for all of them, waiting for each other.

With a single rank everything here is a no-op, and no process group exists.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ftl_runtime.context import Device

T = TypeVar("T")


def join(device: Device) -> None:
    """Form the process group. Blocks until all ranks are there."""
    if device.num_ranks > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device.kind == "cuda" else "gloo")


def wait(device: Device) -> None:
    """Return when every rank has come here."""
    if device.num_ranks > 1:
        dist.barrier()


@contextmanager
def main_first(device: Device) -> Iterator[None]:
    """Let rank 0 through the block before the others: it fills the cache that they then read."""
    if not device.is_main:
        wait(device)
    yield
    if device.is_main:
        wait(device)


def share(value: T, device: Device) -> T:
    """Rank 0's value, on every rank."""
    if device.num_ranks == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def sum_counts(count: int, device: Device) -> int:
    if device.num_ranks == 1:
        return count
    total = torch.tensor(count, device=_where(device))
    dist.all_reduce(total)
    return int(total)


def sum_floats(value: float, device: Device) -> float:
    if device.num_ranks == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64, device=_where(device))
    dist.all_reduce(total)
    return float(total)


def gather(value: T, device: Device) -> list[T]:
    """The value of every rank, in their order, on every rank."""
    if device.num_ranks == 1:
        return [value]
    values: list[T] = [value] * device.num_ranks
    dist.all_gather_object(values, value)
    return values


def sum_tensor(values: Tensor, device: Device) -> Tensor:
    """With one rank the tensor itself."""
    if device.num_ranks == 1:
        return values
    total = values.clone()
    dist.all_reduce(total)
    return total


def mean(value: Tensor, device: Device) -> float:
    """The mean of a scalar tensor over the ranks; with one rank its exact value."""
    if device.num_ranks == 1:
        return float(value)
    total = value.clone()
    dist.all_reduce(total)
    return float(total) / device.num_ranks


def _where(device: Device) -> str:
    return "cuda" if device.kind == "cuda" else "cpu"
