"""Whole safetensors of a model, or an adapter, that was written in shards."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException

from ftl.config.model import ModelSection
from ftl.config.train import TrainConfig
from ftl.errors import ConfigError
from ftl_runtime.checkpoint.volume import storage_errors
from ftl_runtime.context import Context
from ftl_runtime.merge.lora import SHARD_SIZE
from ftl_runtime.models.hub import on_this_machine
from ftl_runtime.models.load import load_config, load_model
from ftl_runtime.models.tokenizer import load_tokenizer, view_of
from ftl_runtime.objectives import OBJECTIVES
from ftl_runtime.output import finish_task, sealed_output
from ftl_runtime.parallel import shards

_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def merge_shards(cfg: TrainConfig, ctx: Context) -> None:
    """Put the shards in `base_model` together, in main memory, and write the whole to RUN/output with the tokenizer.

    Raises ConfigError where there are none, or a part of them is missing or broken.
    """
    ctx.phase("model")
    section, _ = on_this_machine(cfg.model, ctx, wanted="tokenizer")
    directory = Path(section.base)
    weights = _read(directory)
    formats = sorted({str(weight.dtype).removeprefix("torch.") for weight in weights.values()})
    facts = {"weights": str(len(weights)), "format": ", ".join(formats)}
    tokenizer = load_tokenizer(section, cfg.data, ctx)
    view_of(tokenizer, cfg.data)  # gives it the config's chat template
    ctx.phase("finishing")
    with storage_errors(ctx.run_dir):
        with sealed_output(ctx, step=0) as stage:
            if (directory / _ADAPTER_FILES[0]).is_file():
                shutil.copyfile(directory / _ADAPTER_FILES[0], stage / _ADAPTER_FILES[0])
                save_file(weights, stage / _ADAPTER_FILES[1], metadata={"format": "pt"})
            else:
                _save_model(weights, section, cfg, stage, ctx)
            tokenizer.save_pretrained(stage)
        finish_task(ctx, facts)


def _read(directory: Path) -> dict[str, Tensor]:
    if not shards.are_in(directory):
        raise ConfigError(f"{directory}: has no {shards.WEIGHTS_DIR}, so there are no shards to put together")
    try:
        return shards.whole(directory)
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, CheckpointException) as error:
        raise ConfigError(f"{directory}: a part of its shards is missing or broken; copy it again") from error


def _save_model(weights: dict[str, Tensor], section: ModelSection, cfg: TrainConfig, stage: Path, ctx: Context) -> None:
    """As transformers writes it: under the names that its files have, weights that are one once. Empties `weights`."""
    objective = OBJECTIVES[cfg.objective.kind]
    num_classes = cfg.objective.num_labels or objective.num_classes
    config = load_config(section, ctx, head=objective.head, num_classes=num_classes)
    with torch.device("meta"):  # the shape of the model alone
        model: Any = load_model(  # Any: a model without weights
            section.model_copy(update={"reinit_weights": True}),
            config,
            ctx,
            dtype=next(weight.dtype for weight in weights.values() if weight.is_floating_point()),
            attention="eager",
            seed=cfg.optim.seed,
            head=objective.head,
        )
    model.config.use_cache = True
    model.save_pretrained(stage, state_dict=weights, max_shard_size=SHARD_SIZE)
