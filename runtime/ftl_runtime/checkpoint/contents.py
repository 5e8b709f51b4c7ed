"""What goes into the large files of a checkpoint, between the step whose state it is and the moment it is written.

They are named here with their tensors, copied in main memory, and written from the copy while the training changes the
tensors: the bytes are those of the step.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import peft_model
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import modeling_utils

from ftl_runtime.checkpoint.buffers import Buffers, taken_by

_SAVERS: tuple[Any, ...] = (modeling_utils, peft_model)  # Any: modules, whose imports mypy hides
"""Their `save_pretrained` calls safetensors by a name of their own, `safe_save_file`."""


@dataclass(frozen=True)
class _File:
    path: Path
    value: Any  # Any: whatever an optimizer's state is made of; of a safetensors file names and tensors
    write: Callable[[Any, Path], None]
    is_pickle: bool


class Contents:
    """Files to write, in this order. Nothing in them may change until that is done, or they are copied."""

    def __init__(self) -> None:
        self._files: list[_File] = []
        self._copies: _Copies | None = None

    def add_pickle(self, path: Path, value: Any) -> None:  # Any: as above
        self._files.append(_File(path, value, torch.save, is_pickle=True))

    def add_tensors(self, path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
        """A safetensors file."""
        self._files.append(_File(path, tensors, partial(save_file, metadata=metadata), is_pickle=False))

    @contextmanager
    def taking_weights(self) -> Iterator[None]:
        """Inside, the `save_pretrained` of transformers and peft writes all but the weights, which are added here."""

        def take(tensors: dict[str, Tensor], filename: str, metadata: dict[str, str] | None = None) -> None:
            self.add_tensors(Path(filename), tensors, metadata)

        originals = [module.safe_save_file for module in _SAVERS]
        for module in _SAVERS:
            module.safe_save_file = take
        try:
            yield
        finally:
            for module, original in zip(_SAVERS, originals, strict=True):
                module.safe_save_file = original

    def num_bytes(self) -> int:
        """What a copy of them takes; of tensors that share memory once."""
        sizes: dict[tuple[object, ...], int] = {}

        def measure(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            sizes[storage.device, storage.data_ptr()] = taken_by(storage.nbytes(), is_pinned=tensor.is_cuda)
            return tensor

        for file in self._files:
            _mapped(file.value, measure, {})
        return sum(sizes.values())

    @torch.no_grad()
    def copied(self, buffers: Buffers) -> "Contents":
        """The same with tensors of its own, in memory of `buffers`: what they held before is overwritten.

        What a GPU holds is copied before anything that is asked of it later, and nobody waits for that.
        """
        own = Contents()
        own._copies = copies = _Copies(buffers)
        for file in self._files:
            value = _mapped(file.value, copies.with_storage if file.is_pickle else copies.alone, {})
            own._files.append(replace(file, value=value))
        copies.end()
        return own

    def write(self) -> None:
        """Write them all; of copies also while something else computes. Raises OSError, and what torch and safetensors
        raise."""
        if self._copies is not None:
            self._copies.wait()
        for file in self._files:
            file.path.touch()  # an OSError where nothing may be written: torch and safetensors have others
            file.write(file.value, file.path)


class _Copies:
    """Copies of tensors in main memory."""

    def __init__(self, buffers: Buffers) -> None:
        self._buffers = buffers
        self._storages: dict[tuple[object, ...], Tensor] = {}
        self._gpus: set[torch.device] = set()
        self._made: list[torch.cuda.Event] = []
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()  # what lies in main memory is copied by the CPU, which is ahead of the GPU
        buffers.begin()

    def alone(self, tensor: Tensor) -> Tensor:
        """Its elements, and no others of its memory."""
        own = self._memory(tensor, tensor.nbytes).view(tensor.dtype).view(tensor.shape)
        return own.copy_(tensor, non_blocking=True)

    def with_storage(self, tensor: Tensor) -> Tensor:
        """The same in a copy of its memory, in which lie also the copies of all others that share it: as a pickle
        has it."""
        source = tensor.untyped_storage()
        key = (source.device, source.data_ptr())
        if key not in self._storages:
            memory = self._storages[key] = self._memory(tensor, source.nbytes())
            memory.copy_(_bytes_of(tensor), non_blocking=True)
        own = torch.empty(0, dtype=tensor.dtype)
        own.set_(self._storages[key].untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
        own.requires_grad_(tensor.requires_grad)
        own.__dict__.update(tensor.__dict__)
        return nn.Parameter(own, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else own

    def end(self) -> None:
        """All are asked for."""
        self._buffers.end()
        for gpu in self._gpus:
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(torch.cuda.current_stream(gpu))
            self._made.append(event)

    def wait(self) -> None:
        """Until they are there."""
        for event in self._made:
            event.synchronize()

    def _memory(self, tensor: Tensor, num_bytes: int) -> Tensor:
        if tensor.is_cuda:
            self._gpus.add(tensor.device)
        return self._buffers.take(num_bytes, is_pinned=tensor.is_cuda)


def _bytes_of(tensor: Tensor) -> Tensor:
    """All of its memory."""
    return torch.empty(0, dtype=torch.uint8, device=tensor.device).set_(tensor.untyped_storage())


def _mapped(value: Any, change: Callable[[Tensor], Tensor], seen: dict[int, Any]) -> Any:  # Any: as in a _File
    """The same containers with other tensors. What is one object stays one, on which the bytes of a pickle depend."""
    if id(value) in seen:
        return seen[id(value)][0]
    own: Any
    if isinstance(value, Tensor):
        own = _mapped_tensor(value, change, seen)
    elif isinstance(value, dict):
        own = copy.copy(value)
        for key, item in value.items():
            own[key] = _mapped(item, change, seen)
    elif isinstance(value, list):
        own = [_mapped(item, change, seen) for item in value]
    elif type(value) is tuple:
        items = tuple(_mapped(item, change, seen) for item in value)
        own = value if all(one is other for one, other in zip(items, value, strict=True)) else items
    else:
        own = copy.deepcopy(value)
    seen[id(value)] = own, value  # the value too, or another could get its id
    return own


def _mapped_tensor(tensor: Tensor, change: Callable[[Tensor], Tensor], seen: dict[int, Any]) -> Tensor:  # Any: as above
    if type(tensor) in (Tensor, nn.Parameter) and tensor.layout == torch.strided and not tensor.is_quantized:
        return change(tensor)
    if hasattr(tensor, "__tensor_flatten__"):  # several in one, as states in few bits
        names, rest = tensor.__tensor_flatten__()
        parts = {name: _mapped(getattr(tensor, name), change, seen) for name in names}
        whole: Tensor = type(tensor).__tensor_unflatten__(parts, rest, tensor.size(), tensor.stride())  # type: ignore[attr-defined]
        return whole
    return tensor.detach().to("cpu", copy=True)
