"""Weights in fp32 and states of an optimizer, of which each rank has a part, end to end in flat tensors.

States that belong to single weights are saved whole, as an optimizer without shards saves them. Others, as those in 8
bits, belong to blocks that span weights: they are saved as each rank has them, and go on in as many ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers.trainer import OPTIMIZER_NAME

from ftl.errors import ConfigError
from ftl_runtime.checkpoint.contents import Contents
from ftl_runtime.context import Device


@dataclass(frozen=True)
class Part:
    """Which elements of a weight this rank has: `length` of them from `offset` on, at `start` of `flat`."""

    flat: Tensor
    start: int
    offset: int
    length: int
    shape: Sequence[int]
    """Of the whole weight."""

    def of(self, values: Tensor) -> Tensor:
        """The elements, in a tensor that is laid out as `flat`."""
        return values.narrow(0, self.start, self.length)

    def cut_from(self, whole: Tensor) -> Tensor:
        return whole.detach().flatten().narrow(0, self.offset, self.length)


def gather(part: Part, values: Tensor, device: Device) -> Tensor:
    """The whole of what is laid out as `part.flat`, in the main memory of rank 0; nothing elsewhere. All must ask."""
    where = torch.cuda.current_device() if device.kind == "cuda" else "cpu"
    whole = torch.zeros(torch.Size(part.shape).numel(), dtype=values.dtype, device=where)
    whole.narrow(0, part.offset, part.length).copy_(part.of(values.detach()))
    dist.all_reduce(whole)
    return whole.view(*part.shape).cpu() if device.is_main else torch.empty(0)


class States:
    """Of all trained weights, in the groups of their optimizer."""

    def __init__(
        self, optimizer: Optimizer, groups: list[list[nn.Parameter]], parts: list[list[Part]], device: Device
    ) -> None:
        self._optimizer = optimizer
        self._groups = groups
        self._parts = parts
        self._device = device
        self._of_weight = {
            id(weight): part
            for group, of_group in zip(groups, parts, strict=True)
            for weight, part in zip(group, of_group, strict=True)
        }
        self._flats = list({id(part.flat): part.flat for group in parts for part in group}.values())

    def has(self, weight: Tensor) -> bool:
        return id(weight) in self._of_weight

    def master(self, weight: Tensor) -> Tensor:
        """The whole weight in fp32, in the main memory of rank 0."""
        part = self._of_weight[id(weight)]
        return gather(part, part.flat, self._device)

    @torch.no_grad()
    def set_masters(self, masters: list[list[Tensor]]) -> None:
        """What the optimizer steps on, where the engine has rounded it. `masters` are whole tensors, and given up."""
        for group in self._parts:
            values = masters.pop(0)
            for part in group:
                part.of(part.flat.detach()).copy_(part.cut_from(values.pop(0)))

    def check_divided(self, num_ranks: int) -> None:
        """Raises AssertionError where a rank steps on more than its share, and some padding."""
        total = sum(int(torch.Size(part.shape).numel()) for group in self._parts for part in group)
        mine = sum(flat.numel() for flat in self._flats)
        padding = num_ranks * sum(len(group) + 2 for group in self._groups)
        assert mine * num_ranks <= total + padding, f"{mine} of {total} elements on one of {num_ranks} ranks"
        assert sum(part.length for group in self._parts for part in group) <= mine

    def save(self, directory: Path, contents: Contents) -> None:
        """Have rank 0 write them with `contents`, or each rank its part at once. All must ask, in the same step."""
        if not self._is_divisible():
            states = [dict(self._optimizer.state[flat]) for flat in self._flats]
            groups = [_without_weights(group) for group in self._optimizer.param_groups]
            torch.save({"states": states, "param_groups": groups}, self._file(directory))
            return
        saved: dict[int, dict[str, Any]] = {}  # Any: as torch's optimizers have it
        groups = []
        for settings, parts in zip(self._optimizer.param_groups, self._parts, strict=True):
            first = len(saved)
            for part in parts:
                saved[len(saved)] = {
                    name: self._saved(part, value) for name, value in self._optimizer.state[part.flat].items()
                }
            groups.append(_without_weights(settings) | {"params": list(range(first, len(saved)))})
        if self._device.is_main:
            contents.add_pickle(directory / OPTIMIZER_NAME, {"state": saved, "param_groups": groups})

    @torch.no_grad()
    def load(self, directory: Path) -> None:
        """What `save` wrote, by however many ranks. Raises ConfigError where these are not as many as they must be."""
        by_rank = sorted(directory.glob("zero_*_of_*.pt"))
        if not by_rank:
            self._load_whole(directory / OPTIMIZER_NAME)
            return
        if len(by_rank) != self._device.num_ranks:
            raise ConfigError(
                f"deepspeed: {directory.name} has optimizer states in {len(by_rank)} shards, which cannot be divided "
                f"anew: go on with as many processes, or train with adamw_torch_fused"
            )
        saved = torch.load(self._file(directory), map_location="cpu", weights_only=True)
        for flat, state in zip(self._flats, saved["states"], strict=True):
            self._optimizer.state[flat] = {
                name: value.to(flat.device) if isinstance(value, Tensor) else value for name, value in state.items()
            }
        self._set_groups(saved["param_groups"])

    def _load_whole(self, path: Path) -> None:
        saved = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        numbers = [number for group in saved["param_groups"] for number in group["params"]]
        parts = [part for group in self._parts for part in group]
        on_device = {
            id(part.flat): bool(settings.get("fused") or settings.get("capturable"))
            for settings, group in zip(self._optimizer.param_groups, self._parts, strict=True)
            for part in group
        }
        for number, part in zip(numbers, parts, strict=True):
            state = self._optimizer.state[part.flat]
            for name, value in saved["state"].get(number, {}).items():
                if isinstance(value, Tensor) and value.shape == torch.Size(part.shape):
                    if name not in state:
                        state[name] = torch.zeros_like(part.flat, dtype=value.dtype, requires_grad=False)
                    part.of(state[name]).copy_(part.cut_from(value))
                elif isinstance(value, Tensor):
                    state[name] = value.to(part.flat.device, copy=True) if on_device[id(part.flat)] else value.clone()
                else:
                    state[name] = value
        self._set_groups(saved["param_groups"])

    def _saved(self, part: Part, value: Any) -> Any:  # Any: a state
        """What is one number for many weights is one for each, as without shards: they are counted up apart."""
        if _is_laid_out_as(value, part.flat):
            return gather(part, value, self._device)
        return value.clone() if isinstance(value, Tensor) else value

    def _set_groups(self, saved: list[dict[str, Any]]) -> None:  # Any: settings of a group, as torch has them
        for settings, group in zip(self._optimizer.param_groups, saved, strict=True):
            settings.update(_without_weights(group))

    def _is_divisible(self) -> bool:
        """Whether every state is a number, or has one element for each of a weight."""
        return all(
            not isinstance(value, Tensor) or value.numel() == 1 or _is_laid_out_as(value, flat)
            for flat in self._flats
            for value in self._optimizer.state[flat].values()
        )

    def _file(self, directory: Path) -> Path:
        return directory / f"zero_{self._device.rank}_of_{self._device.num_ranks}.pt"


def _is_laid_out_as(value: Any, flat: Tensor) -> bool:  # Any: a state, which may be no tensor
    return isinstance(value, Tensor) and value.shape == flat.shape and value.is_floating_point()


def _without_weights(group: dict[str, Any]) -> dict[str, Any]:  # Any: settings of a group, as torch has them
    return {name: value for name, value in group.items() if name != "params"}
