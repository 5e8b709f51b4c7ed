"""ReLoRA: every so many steps the adapter is merged into the base and begun anew. Source: arXiv 2307.05695.

The sum of many low-rank updates has a high rank. Shapes: O outputs, I inputs, R rank.
"""

import copy
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftl.config.adapter import LoraSection
from ftl.errors import ConfigError
from ftl_runtime.checkpoint.contents import Contents
from ftl_runtime.models.quantize import dense, put_dense

STATE_FILE = "relora.safetensors"

Pairs = dict[str, tuple[Tensor, Tensor]]
"""Layer -> its A [R, I] and B [O, R]."""


class Relora(TrainerCallback):
    """Begins the adapter anew before each step that is a multiple of `every_steps`.

    The weights of a layer are always W + sum of s B A over all rounds, in fp32 from the base's own W, and only then in
    the format of the base: a quantised base is rounded once, however often it is merged into. For that W is kept in
    main memory, as the base holds it. The new matrices depend on seed and step alone.
    """

    def __init__(self, model: PeftModel, adapter: LoraSection, *, every_steps: int, seed: int) -> None:
        """Raises ConfigError for an adapter on what is no linear layer."""
        self._model = model
        self._adapter = adapter
        self._every = every_steps
        self._seed = seed
        self._layers: dict[str, Any] = dict(_layers(model))  # Any: peft's layers, each a class of its own
        self._base = {name: copy.deepcopy(layer.base_layer).cpu() for name, layer in self._layers.items()}
        self._rounds: list[Pairs] = []

    def load(self, checkpoint: Path) -> None:
        """Merge the rounds that the checkpoint has behind it."""
        if not (checkpoint / STATE_FILE).exists():
            return
        stored = load_file(checkpoint / STATE_FILE)
        num_rounds = 1 + max(int(key.partition(".")[0]) for key in stored)
        self._rounds = [
            {name: (stored[f"{number}.{name}.A"], stored[f"{number}.{name}.B"]) for name in self._layers}
            for number in range(num_rounds)
        ]
        self._merge()

    def save(self, checkpoint: Path, contents: Contents) -> None:
        """Have `contents` write what `load` reads."""
        if self._rounds:
            stored = {
                f"{number}.{name}.{letter}": matrix
                for number, pairs in enumerate(self._rounds)
                for name, pair in pairs.items()
                for letter, matrix in zip("AB", pair, strict=True)
            }
            contents.add_tensors(checkpoint / STATE_FILE, stored)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:  # Any: the Trainer passes its parts
        if state.global_step // self._every <= len(self._rounds):
            return
        self._rounds.append(self._matrices())
        self._merge()
        generator = torch.Generator().manual_seed(self._seed + state.global_step)
        with torch.no_grad():
            for layer in self._layers.values():
                a, b = _pair(layer)
                a.copy_(_kaiming(a.shape, generator))
                b.zero_()
        prune(kwargs["optimizer"], [item for layer in self._layers.values() for item in _pair(layer)], self._share)

    def merged(self) -> PreTrainedModel:
        """The base with all rounds in it and no adapter, unquantised. The adapted model is of no use afterwards."""
        last = self._matrices()
        base: Any = self._model.get_base_model()  # Any: peft says Module, and it is a PreTrainedModel
        dtype: torch.dtype = base.dtype
        for name, layer in self._layers.items():
            weight_OI = self._sum(name, [*self._rounds, last])
            bias = layer.base_layer.bias
            linear = nn.Linear(weight_OI.shape[1], weight_OI.shape[0], bias=bias is not None, dtype=dtype)
            linear.weight.data = weight_OI.to(dtype)
            if bias is not None:
                linear.bias.data = bias.detach().to("cpu", dtype)
            _replace(self._model, name, linear)
        for name, part in list(self._model.named_modules()):
            if isinstance(part, ModulesToSaveWrapper):
                _replace(self._model, name, part.modules_to_save["default"].to(dtype=dtype))
        if getattr(base, "is_quantized", False):
            base.dequantize()  # layers without an adapter
        merged: PreTrainedModel = base
        return merged

    @property
    def _share(self) -> float:
        return self._adapter.prune_ratio

    def _matrices(self) -> Pairs:
        found: Pairs = {}
        for name, layer in self._layers.items():
            a, b = _pair(layer)
            found[name] = (a.detach().cpu().clone(), b.detach().cpu().clone())
        return found

    @torch.no_grad()
    def _merge(self) -> None:
        for name, layer in self._layers.items():
            put_dense(layer.base_layer, self._sum(name, self._rounds))

    @torch.no_grad()
    def _sum(self, name: str, rounds: Iterable[Pairs]) -> Tensor:
        """W + sum of s B A, in fp32, on the CPU."""
        layer = self._layers[name]
        device = torch.device("cpu") if self._adapter.merges_on_cpu else layer.base_layer.weight.device
        total_OI = dense(self._base[name]).to(device)
        for pairs in rounds:
            a, b = (item.to(device, torch.float32) for item in pairs[name])
            total_OI += layer.scaling["default"] * (b @ a)
        return total_OI.cpu()


def prune(optimizer: Optimizer, parameters: Iterable[nn.Parameter], share: float) -> None:
    """Set that share of each moment of these parameters to 0, the values nearest to 0; moments in few bits go whole."""
    for parameter in parameters:
        state = optimizer.state.get(parameter, {})
        moments = [value for value in state.values() if torch.is_tensor(value) and value.numel() == parameter.numel()]
        if any(not value.is_floating_point() for value in moments):
            optimizer.state.pop(parameter, None)
            continue
        for value in moments:
            num_kept = value.numel() - int(value.numel() * share)
            kept = torch.zeros_like(value, dtype=torch.bool).flatten()
            kept[value.abs().flatten().topk(num_kept).indices] = True
            value.mul_(kept.view_as(value))


def _layers(model: PeftModel) -> Iterable[tuple[str, Any]]:  # Any: as above
    for name, part in model.named_modules():
        if hasattr(part, "lora_A") and hasattr(part, "base_layer"):
            if not isinstance(part.base_layer, nn.Linear):
                kind = type(part.base_layer).__name__
                raise ConfigError(f"relora: merges into linear layers alone, and {name} is a {kind}")
            yield name, part


def _pair(layer: Any) -> tuple[nn.Parameter, nn.Parameter]:  # Any: as above
    return layer.lora_A["default"].weight, layer.lora_B["default"].weight


def _kaiming(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """As a fresh adapter's A: uniform, at most 1 / sqrt(inputs)."""
    return (2 * torch.rand(shape, generator=generator) - 1) / math.sqrt(shape[1])


def _replace(model: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, part)
