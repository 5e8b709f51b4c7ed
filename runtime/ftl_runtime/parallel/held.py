"""The model and the states of its optimizer as the ranks hold them: whole, in shards, cut, or in DeepSpeed's hands."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers.trainer import OPTIMIZER_NAME

from ftl.config.parallel import ParallelSection
from ftl.errors import ConfigError
from ftl_runtime.checkpoint.contents import Contents
from ftl_runtime.context import Device
from ftl_runtime.parallel import deepspeed, fsdp, shards, tensor
from ftl_runtime.train.averaging import bare


@dataclass(frozen=True)
class Held:
    model: nn.Module
    """Without what wraps it in training."""
    device: Device
    cut: tensor.Cut | None
    zero: deepspeed.Zero | None
    writes_shards: bool
    """Whether each rank writes its own part of a checkpoint."""

    @property
    def is_sharded(self) -> bool:
        """Whether tensors of the model are parts of weights."""
        return fsdp.is_sharded(self.model) or self.cut is not None

    @property
    def is_whole(self) -> bool:
        """Whether rank 0 has everything, as it is saved."""
        return self.zero is None and not self.is_sharded

    def take_over(self, accelerator: Any, create_optimizer: Callable[[], Optimizer]) -> None:  # Any: has no types
        """Have transformers' loop train the model as it is held, where accelerate would wrap it anew."""
        if self.is_sharded:
            prepare = accelerator.prepare_model
            # It sets the number format around the model, and no more.
            accelerator.prepare_model = lambda model, **unused: prepare(
                model, device_placement=False, evaluation_mode=True
            )
        if self.zero is not None:
            self.zero.take_over(accelerator, create_optimizer)

    def whole_weights(self) -> dict[str, Tensor] | None:
        """What `save_pretrained` is to write where rank 0 does not hold it. All ranks must ask; rank 0 gets it."""
        if self.zero is not None:
            return self.zero.whole_weights()
        return fsdp.whole_weights(self.model, self.device) if self.is_sharded else None

    def save_model(self, model: Any, directory: Path, weights: dict[str, Tensor] | None) -> None:  # Any: has no type
        """`weights` are those that `whole_weights` gave."""
        model.save_pretrained(directory, state_dict=weights)
        if self.zero is not None:
            self.zero.mend_config(directory)

    def save(self, optimizer: Any, stage: Path, contents: Contents) -> None:  # Any: accelerate's wrapper
        """Put the model and the optimizer's states into `stage`: on rank 0 what is large goes to `contents`, what each
        rank writes for itself is written. All ranks must ask."""
        if self.is_sharded and self.writes_shards:
            shards.write_weights(self.model, stage, self.device)
            shards.write_states(self.model, bare(optimizer), stage, self.device)
            if self.device.is_main:
                shards.describe(self.model, stage)
            return
        weights = self.whole_weights()
        if self.zero is not None:
            self.zero.save_states(stage, contents)
        else:
            states = fsdp.whole_states(bare(optimizer), self.device) if self.is_sharded else optimizer.state_dict()
            if self.device.is_main:
                contents.add_pickle(stage / OPTIMIZER_NAME, states)
        if self.device.is_main:
            with contents.taking_weights():
                self.save_model(self.model, stage, weights)
            (stage / "README.md").unlink(missing_ok=True)  # peft's model card names local paths

    def read_shards(self, directory: Path) -> None:
        """Give the model the weights in `directory` where they are in shards: others it has since it was built.

        All ranks must ask. Raises ConfigError for a model that cannot take them.
        """
        if not shards.are_in(directory):
            return
        other = "deepspeed" if self.zero is not None else "tensor_parallel_size" if self.cut is not None else None
        if other is not None:
            raise ConfigError(f"{other}: cannot go on from {directory.name}, whose shards fsdp_config has written")
        shards.read_weights(self.model, directory, self.device)

    def load_states(self, optimizer: Optimizer, directory: Path) -> None:
        """Give the optimizer the states in `directory`, however they were held when they were saved."""
        own = bare(optimizer)
        if self.zero is not None:
            self.zero.load_states(directory)
        elif shards.are_in(directory):
            shards.read_states(self.model, own, directory, self.device)
        elif self.is_sharded:
            fsdp.load_states(own, directory / OPTIMIZER_NAME)
            if self.cut is not None:
                tensor.step_one_by_one(own)


def hold(
    model: nn.Module, parallel: ParallelSection, zero: deepspeed.Plan | None, dtype: torch.dtype, device: Device
) -> Held:
    """Share `model` out over the ranks in place, where the config says so; DeepSpeed does so when training begins.

    `dtype` is what products are computed in. All ranks must ask. Raises ConfigError for a model that is not shared so.
    """
    sharing = fsdp.in_use(parallel, device)
    if sharing is not None:
        fsdp.shard(model, parallel, dtype, device)
    return Held(
        model,
        device,
        cut=tensor.cut(model, dtype, device) if parallel.tensor_size > 1 else None,
        zero=None if zero is None else deepspeed.Zero(zero),
        writes_shards=sharing is not None and sharing.saves_in_shards,
    )
