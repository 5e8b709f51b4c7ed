"""Weights and optimizer states in files of shards: each rank writes its own part, and nothing is gathered.

    pytorch_model_fsdp_0/    what is trained, by torch.distributed.checkpoint (DCP); named as accelerate names it
    optimizer_0/             the tensors of the optimizer's states
    optimizer.pt             its settings, and the numbers in its states

They are read back by any number of ranks, or by a process alone: each reads the pieces it needs.
"""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor, nn
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer
from transformers.trainer import OPTIMIZER_NAME

from ftl.errors import ConfigError
from ftl_runtime import ranks
from ftl_runtime.context import Device
from ftl_runtime.parallel.fsdp import saved_weights

WEIGHTS_DIR, STATES_DIR = "pytorch_model_fsdp_0", "optimizer_0"
_METADATA = ".metadata"


def are_in(directory: Path) -> bool:
    return (directory / WEIGHTS_DIR / _METADATA).is_file()


def write_weights(model: nn.Module, directory: Path, device: Device) -> None:
    """All ranks must call it. What `save_pretrained` would have written, with the names it has in the model."""
    _write(_weights_of(model), directory / WEIGHTS_DIR, device)


def read_weights(model: nn.Module, directory: Path, device: Device) -> None:
    """Put what `write_weights` wrote into the model. Raises ConfigError where it is of another model."""
    wanted = _weights_of(model)
    found = {
        name: tuple(entry.size)
        for name, entry in _metadata(directory / WEIGHTS_DIR).state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    shapes = {name: tuple(value.shape) for name, value in wanted.items()}
    if wrong := sorted(name for name in {*found, *shapes} if found.get(name) != shapes.get(name)):
        told = f"{wrong[0]} is {found.get(wrong[0], 'missing')}, and this model has {shapes.get(wrong[0], 'none')}"
        raise ConfigError(f"{directory.name}: is of another model: {told}")
    _read(wanted, directory / WEIGHTS_DIR, device)


def write_states(model: nn.Module, optimizer: Optimizer, directory: Path, device: Device) -> None:
    """All ranks must call it."""
    names = _names_of(model)
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}  # Any: whatever an optimizer counts in
    for parameter, state in optimizer.state.items():
        for kind, value in state.items():
            name = f"{names[id(parameter)]}/{kind}"
            if isinstance(value, Tensor):
                tensors[name] = value
            else:
                numbers[name] = value
    _write(tensors, directory / STATES_DIR, device)
    if device.is_main:
        groups = [
            {**group, "params": [names[id(parameter)] for parameter in group["params"]]}
            for group in optimizer.param_groups
        ]
        torch.save({"groups": groups, "numbers": numbers}, directory / OPTIMIZER_NAME)


def read_states(model: nn.Module, optimizer: Optimizer, directory: Path, device: Device) -> None:
    """Put back what `write_states` wrote, each rank its part."""
    settings = torch.load(directory / OPTIMIZER_NAME, map_location="cpu", weights_only=True)
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    tensors: dict[str, Tensor] = {}
    for name, entry in _metadata(directory / STATES_DIR).state_dict_metadata.items():
        assert isinstance(entry, TensorStorageMetadata), f"{name} is a tensor, as write_states sorted them"
        parameter = parameters[name.rpartition("/")[0]]
        dtype = entry.properties.dtype
        is_as_parameter = entry.size == parameter.shape
        tensors[name] = (
            torch.zeros_like(parameter, dtype=dtype) if is_as_parameter else torch.zeros(entry.size, dtype=dtype)
        )
    _read(tensors, directory / STATES_DIR, device)
    states: dict[str, dict[str, Any]] = {}  # Any: as torch's optimizers have it
    for name, value in {**tensors, **settings["numbers"]}.items():
        owner, _, kind = name.rpartition("/")
        states.setdefault(owner, {})[kind] = value
    order = [name for group in settings["groups"] for name in group["params"]]
    numbered = {name: number for number, name in enumerate(order)}
    optimizer.load_state_dict(
        {
            "state": {numbered[name]: state for name, state in states.items()},
            "param_groups": [
                {**group, "params": [numbered[name] for name in group["params"]]} for group in settings["groups"]
            ],
        }
    )


def describe(model: nn.Module, directory: Path) -> None:
    """Write what the weights belong to: the config of the model, and that of the adapter on it."""
    whole: Any = model  # Any: a model of transformers, maybe in peft's
    whole.config.save_pretrained(directory)
    if isinstance(model, PeftModel):
        model.peft_config["default"].save_pretrained(str(directory))


def whole(directory: Path) -> dict[str, Tensor]:
    """The weights put together, in main memory, by this process alone."""
    entries = _metadata(directory / WEIGHTS_DIR).state_dict_metadata
    weights = {
        name: torch.empty(entry.size, dtype=entry.properties.dtype)
        for name, entry in entries.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    _read(weights, directory / WEIGHTS_DIR, None)
    return weights


def _weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The model's own tensors, or their shards on this rank, by the names that its files have. Weights that are one
    are there once."""
    saved = saved_weights(model)
    if isinstance(model, PeftModel):
        saved = get_peft_model_state_dict(model, state_dict=saved)
    distinct: dict[int, str] = {}
    return {name: value.detach() for name, value in saved.items() if distinct.setdefault(id(value), name) == name}


def _names_of(model: nn.Module) -> dict[int, str]:
    return {id(parameter): name for name, parameter in model.named_parameters()}


def _write(tensors: Mapping[str, Tensor], directory: Path, device: Device) -> None:
    save(dict(tensors), storage_writer=FileSystemWriter(directory), process_group=ranks.patient(device))


def _read(tensors: Mapping[str, Tensor], directory: Path, device: Device | None) -> None:
    """Into the tensors themselves. All ranks must ask; without `device` this process alone."""
    is_alone = device is None or device.num_ranks == 1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        load(
            dict(tensors),
            storage_reader=_Reader(directory),
            process_group=None if device is None else ranks.patient(device),
            no_dist=is_alone,
        )


def _metadata(directory: Path) -> Metadata:
    return _Reader(directory).read_metadata()


class _Reader(FileSystemReader):
    """Reads what DCP wrote, and runs no code that somebody put into its pickle."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:  # Any: torch's own signature
        with (Path(self.path) / _METADATA).open("rb") as file:
            metadata: Metadata = _Unpickler(file).load()
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


_DATA = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
_PLAIN = {
    *(("torch", "Size"), ("torch.serialization", "_get_layout"), ("collections", "OrderedDict")),
    *(("pathlib", "PosixPath"), ("pathlib", "Path")),
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:  # Any: what pickle asks for
        found = super().find_class(module, name) if "." not in name else None
        is_data = module in _DATA and isinstance(found, type) and found.__module__ == module
        if is_data or (module, name) in _PLAIN or isinstance(found, torch.dtype):
            return found
        raise ConfigError(f"{_METADATA}: holds {module}.{name}, which no checkpoint has: it may run any code")
