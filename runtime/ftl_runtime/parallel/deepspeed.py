"""Shards by DeepSpeed ZeRO: of the optimizer's states, of gradients too (stage 2), of weights too (stage 3).

The engine is DeepSpeed's own, around the model and the optimizer that a training without it has. It is started here
and not by transformers' Trainer, which on a CPU trains copies instead, and says nothing. Each rank steps on its part of
the trained weights, in fp32. Checkpoints and the finished model are gathered whole, a weight at a time, as in fsdp.py:
a run goes on in any number of shards, or in none.
"""

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from ftl.config.optim import OptimSection
from ftl.config.zero import Zero as Settings
from ftl.errors import ConfigError
from ftl_runtime.checkpoint.contents import Contents
from ftl_runtime.context import Device
from ftl_runtime.parallel.zerostates import Part, States, gather
from ftl_runtime.patches import deepspeed_shm


@dataclass(frozen=True)
class Plan:
    """What the engine is made of, before there is a model."""

    zero: Settings
    optim: OptimSection
    dtype: torch.dtype
    """What products are computed in, and weights held in between steps."""
    device: Device

    @property
    def cuts_weights(self) -> bool:
        """Whether the model must not be put on a GPU as a whole."""
        return self.zero.stage == 3


def plan(zero: Settings | None, optim: OptimSection, dtype: torch.dtype, device: Device) -> Plan | None:
    """None where DeepSpeed has nothing to do: one rank has nothing to share, and offloads maybe.

    Raises ConfigError for fp16, whose gradients are scaled.
    """
    if zero is None:
        return None
    if dtype == torch.float16:
        raise ConfigError("deepspeed: is not trained in fp16, which this GPU needs: remove it, or use fp32")
    if device.num_ranks == 1 and zero.offload_optimizer is None and zero.offload_param is None:
        return None
    return Plan(zero, optim, dtype, device)


def settings(plan: Plan, hidden_size: int | None) -> dict[str, Any]:  # Any: JSON, as DeepSpeed takes it
    """The config in DeepSpeed's words. Sizes that are left open follow from the model's, as transformers has them."""
    zero = plan.zero
    sizes: dict[str, bool | int] = {}
    if zero.stage == 3 and hidden_size is not None:
        sizes = {
            "reduce_bucket_size": hidden_size * hidden_size,
            "stage3_prefetch_bucket_size": hidden_size * hidden_size * 9 // 10,
            "stage3_param_persistence_threshold": 10 * hidden_size,
        }
    named = {"offload_optimizer": zero.offload_optimizer, "offload_param": zero.offload_param}
    offloads = {name: {"device": "cpu", "pin_memory": it.pin_memory} for name, it in named.items() if it is not None}
    return {
        "train_micro_batch_size_per_gpu": plan.optim.micro_batch_size,
        "gradient_accumulation_steps": plan.optim.gradient_accumulation_steps,
        "gradient_clipping": plan.optim.max_grad_norm,  # without it, 1.0
        "zero_optimization": {"stage": zero.stage, **sizes, **zero.tuning, **offloads},
        "bf16": {"enabled": plan.dtype == torch.bfloat16},
        "communication_data_type": plan.zero.communication,
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # its own is compiled on each machine; torch's fused AdamW is as fast
        "steps_per_print": None,
    }


class Zero:
    """One training under DeepSpeed: takes the place of the model's wrapper, the backward pass and the step."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        # Before accelerate imports it: DeepSpeed would guess what it runs on.
        os.environ["DS_ACCELERATOR"] = plan.device.kind
        self._num_expected = self._num_done = 0
        self._engine: Any = None  # Any: deepspeed has no types
        self._states: States | None = None

    @property
    def cuts_weights(self) -> bool:
        return self._plan.cuts_weights

    def take_over(self, accelerator: Any, optimizer: Callable[[], Optimizer]) -> None:  # Any: accelerate's own
        """Have transformers' loop drive DeepSpeed's engine where accelerate would wrap the model."""
        accelerator.prepare_model = lambda model, **unused: self._start(model, optimizer())
        accelerator.prepare_optimizer = lambda optimizer, **unused: _Steps(self, optimizer)
        accelerator.backward = self._backward
        accelerator.no_sync = lambda model: nullcontext()

    def expect(self, num_micro_batches: int) -> None:
        """So many backward passes make the next step."""
        self._num_expected, self._num_done = num_micro_batches, 0

    def step(self) -> None:
        self._engine.step()

    def grad_norm(self) -> float:
        """Of the last step, before it was clipped."""
        return float(self._engine.get_global_grad_norm())

    def spread(self) -> str:
        """In words, how the training was really laid out. Raises AssertionError where each rank has all of it."""
        num_ranks = self._plan.device.num_ranks
        assert dist.get_world_size() == num_ranks and self._engine.zero_optimization_stage() == self._plan.zero.stage
        assert self._states is not None
        self._states.check_divided(num_ranks)
        if self.cuts_weights:
            weights = self._engine.module.named_parameters()
            uncut = [name for name, w in weights if w.ds_tensor.numel() * num_ranks >= w.ds_numel + num_ranks]
            assert not uncut, f"weights that no rank shares: {uncut}"
        zero = self._plan.zero
        kept = [
            word
            for word, offload in (("optimizer states", zero.offload_optimizer), ("weights", zero.offload_param))
            if offload is not None
        ]
        processes = "1 process" if num_ranks == 1 else f"{num_ranks} processes"
        where = f", {' and '.join(kept)} in main memory" if kept else ""
        return f"ZeRO stage {zero.stage} over {processes}{where}"

    def whole_weights(self) -> dict[str, Tensor]:
        """The model's state dict without shards, trained weights in fp32. On the ranks other than 0 it is empty."""
        weights: dict[str, Tensor] = {}
        gathered: dict[int, Tensor] = {}
        assert self._states is not None
        for name, value in self._engine.module.state_dict(keep_vars=True).items():
            if id(value) not in gathered:  # weights that are one in the model are one here
                gathered[id(value)] = self._whole(value)
            if self._plan.device.is_main:
                weights[name] = gathered[id(value)]
        return weights

    def mend_config(self, directory: Path) -> None:
        """Have the config.json beside weights of `whole_weights` say what they are in, not what is computed in."""
        path = directory / "config.json"
        if path.exists():
            path.write_text(
                json.dumps(json.loads(path.read_text()) | {"dtype": "float32"}, indent=2, sort_keys=True) + "\n"
            )

    def save_states(self, directory: Path, contents: Contents) -> None:
        """Save the optimizer's states; all ranks must ask."""
        assert self._states is not None
        self._states.save(directory, contents)

    def load_states(self, directory: Path) -> None:
        """Give each rank its part of them. Raises ConfigError where they cannot be divided anew."""
        assert self._states is not None
        self._states.load(directory)

    def _start(self, model: nn.Module, optimizer: Optimizer) -> nn.Module:
        library = _library(self._plan.device)
        groups = [list(group["params"]) for group in optimizer.param_groups]
        masters = [[weight.data for weight in group] for group in groups]  # before they are rounded
        config = settings(self._plan, _hidden_size(model))
        if self.cuts_weights:
            self._cut_up(library, model, config)
        self._engine, *_ = library.initialize(model=model, optimizer=optimizer, config=config)
        self._states = States(optimizer, groups, list(self._parts(groups)), self._plan.device)
        self._states.set_masters(masters)
        engine: nn.Module = self._engine
        return engine

    def _cut_up(self, library: ModuleType, model: nn.Module, config: dict[str, Any]) -> None:  # Any: JSON
        """Put each weight in shards on its own, so that no rank has all of them on its GPU."""
        for weight in model.parameters():
            if weight.is_floating_point():
                weight.data = weight.data.to(self._plan.dtype)
        library.zero.Init(module=model, config_dict_or_path=config)
        for buffer in model.buffers():
            buffer.data = buffer.data.to(self._plan.device.kind)

    def _parts(self, groups: list[list[nn.Parameter]]) -> Iterator[list[Part]]:
        """Where this rank keeps its part of each trained weight."""
        optimizer = self._engine.optimizer
        for number, group in enumerate(groups):
            if self.cuts_weights:
                places = [(weight, *optimizer.grad_position[optimizer.get_param_id(weight)]) for weight in group]
                flats = optimizer.fp32_partitioned_groups_flat
                yield [_shard(flats[at], start, size, weight, self._plan.device) for weight, at, start, size in places]
            else:
                # The second name is that of the optimizer for stage 1 in bf16.
                name = "single_partition_of_fp32_groups"
                flats = getattr(optimizer, name, None) or optimizer.fp32_groups_flat_partition
                yield [_part(flats[number], weight) for weight in group]

    def _backward(self, loss: Tensor, **unused: Any) -> None:  # Any: accelerate's own
        self._num_done += 1
        self._engine.set_gradient_accumulation_boundary(self._num_done == self._num_expected)
        self._engine.backward(loss, scale_wrt_gas=False)

    def _whole(self, value: Tensor) -> Tensor:
        assert self._states is not None
        if self._states.has(value):
            return self._states.master(value)
        if not hasattr(value, "ds_tensor"):
            return value.detach()
        # Not by DeepSpeed's GatheredParameters, which fails on a weight that an evaluation has begun to fetch.
        part = _shard(value.ds_tensor, 0, value.ds_tensor.numel(), value, self._plan.device)
        return gather(part, value.ds_tensor, self._plan.device)


class _Steps:
    """What transformers' loop takes for the optimizer."""

    def __init__(self, zero: Zero, optimizer: Optimizer) -> None:
        self._zero = zero
        self.optimizer = optimizer

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # Any: settings of a group, as torch has them
        return self.optimizer.param_groups

    def step(self) -> None:
        self._zero.step()

    def train(self) -> None:
        """For those that tell training from evaluation, as accelerate's wrapper does."""
        if callable(switch := getattr(self.optimizer, "train", None)):
            switch()


def _shard(flat: Tensor, start: int, size: int, weight: Any, device: Device) -> Part:  # Any: DeepSpeed's own attributes
    """Of stage 3: each rank has `size` elements, the last ones less, and padding."""
    offset = min(device.rank * size, weight.ds_numel)
    return Part(flat, start, offset, min(size, weight.ds_numel - offset), weight.ds_shape)


def _part(flat: Tensor, weight: Any) -> Part:  # Any: DeepSpeed's own attributes
    mapping = weight._hp_mapping
    if mapping is None:
        return Part(flat, 0, 0, 0, weight.shape)
    here, there = mapping.hp_fragment_address, mapping.lp_fragment_address
    return Part(flat, here.start, there.start, there.numel, weight.shape)


def _hidden_size(model: nn.Module) -> int | None:
    config = getattr(model, "config", None)
    text = config.get_text_config() if config is not None else None
    return getattr(text, "hidden_size", None)


def _library(device: Device) -> ModuleType:
    """DeepSpeed, among the ranks that there are. Nothing is compiled."""
    for name, value in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1")):
        os.environ.setdefault(name, value)
    library = import_module("deepspeed")
    # It calls torch's collectives by their older names, thousands of times.
    warnings.filterwarnings("ignore", r"`torch\.distributed\..*` is deprecated", FutureWarning)
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    deepspeed_shm.apply()
    if not dist.is_initialized():  # one rank, which has formed no group
        backend = "nccl" if device.kind == "cuda" else "gloo"
        store = dist.HashStore()  # type: ignore[attr-defined]  # torch does not list it
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    groups: Any = import_module("deepspeed.utils.groups")  # Any: it has no types
    groups._WORLD_GROUP = dist.group.WORLD  # else one without ddp_timeout is made
    return library
