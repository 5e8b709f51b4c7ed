"""The ranks of one training, as one: sums over them, a value for all of them, waiting for each other.

With a single rank everything here is a no-op, and no process group exists.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from ftl_runtime.context import Device, rank_on_machine
from ftl_runtime.rendezvous import UnmetError

T = TypeVar("T")


PATIENCE = timedelta(days=7)
"""How long ranks wait for rank 0 to tokenise, download or save. One that dies meanwhile ends the wait at once."""
_patient: list[dist.ProcessGroup] = []


def join(device: Device, timeout_s: int, *, sums_in_memory: bool = False) -> None:
    """Form the process group. Blocks until all ranks are there; raises UnmetError where those of several machines do
    not come together.

    `timeout_s` is how long a rank waits in a sum; for `wait` it does not count. With `sums_in_memory` tensors in main
    memory are summed too where ranks have GPUs.
    """
    if device.num_ranks == 1 or dist.is_initialized():
        return
    on_gpus = "cpu:gloo,cuda:nccl" if sums_in_memory else "nccl"
    try:
        dist.init_process_group(on_gpus if device.kind == "cuda" else "gloo", timeout=timedelta(seconds=timeout_s))
        _patient[:] = [dist.new_group(backend="gloo", timeout=PATIENCE)]
        sum_counts(1, device)  # NCCL connects with the first one
    except RuntimeError as error:
        if device.num_ranks == rank_on_machine()[1]:
            raise
        raise UnmetError(
            f"the trainers of all machines do not meet at {os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}: "
            f"{str(error).splitlines()[0]}; machines must reach each other at all ports, and where they have several "
            "networks, GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME name the one to use"
        ) from error


def wait(device: Device) -> None:
    """Return when every rank has come here, however long that takes."""
    if device.num_ranks > 1:
        dist.barrier(_patient[0])


def patient(device: Device) -> dist.ProcessGroup | None:
    """All ranks, for what may take as long as `wait`; None with one."""
    return _patient[0] if device.num_ranks > 1 else None


@contextmanager
def main_first(device: Device) -> Iterator[None]:
    """Let rank 0 through the block before the others: it fills the cache that they then read.

    Next comes the first rank of each other machine, whose cache may be its own.
    """
    turn = 0 if device.is_main else 1 if rank_on_machine()[0] == 0 else 2
    for _ in range(turn):
        wait(device)
    yield
    for _ in range(turn, 2):
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


def sum_over_copies(count: int, device: Device) -> int:
    """The sum of what each copy of the model counts in its rows; its ranks, which all count them, count once."""
    return sum_counts(count, device) // device.ranks_per_copy


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
