"""Where a run begins: its ranks, its newest checkpoint, its base, and what the last bits of its numbers depend on."""

import os
import random
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import transformers

from ftl.config.model import ModelSection
from ftl.config.train import TrainConfig
from ftl.errors import ConfigError
from ftl_runtime import preflight, ranks
from ftl_runtime.checkpoint import manifest, restore
from ftl_runtime.checkpoint.base import Base, at_commit_of, check_same
from ftl_runtime.checkpoint.manifest import BrokenCheckpoint
from ftl_runtime.checkpoint.store import Checkpoint
from ftl_runtime.context import Context, rank_on_machine
from ftl_runtime.mesh import Mesh
from ftl_runtime.models.hub import on_this_machine
from ftl_runtime.parallel import fsdp
from ftl_runtime.train.progress import Progress


def join_ranks(cfg: TrainConfig, ctx: Context) -> Context:
    """Check this machine and meet the other ranks; the context with the other machines."""
    preflight.check(cfg, ctx)
    preflight.limit_memory(cfg.model.gpu_memory_limit_gib, ctx.device)
    shards = fsdp.in_use(cfg.parallel, ctx.device)
    if cfg.parallel.fsdp is not None and shards is None:
        ctx.warn("fsdp_config has no effect with one process: there is nothing to share with")
    fsdp.layout(cfg.parallel, ctx.device.num_ranks)
    ranks.join(ctx.device, cfg.parallel.timeout_s, sums_in_memory=shards is not None and shards.offload_params)
    mesh = Mesh.of(ctx.run_dir, ctx.device)
    if ctx.device.is_main and (note := mesh.note()):
        sys.stderr.write(f"{note}\n")
    return replace(ctx, mesh=mesh)


def find_checkpoint(cfg: TrainConfig, ctx: Context) -> Checkpoint | None:
    """The newest valid checkpoint of this run, else the one the config names. Raises ConfigError if that is broken."""
    found = restore.newest(ctx.store, ctx.job, ctx.emit)
    if found is not None and cfg.output.save_strategy == "best":
        best_step = Progress.load(found.path).best_step
        if best_step is not None:
            restore.one(ctx.store, best_step, ctx.job, ctx.emit)
    named = cfg.output.resume_from_checkpoint
    if found is None and named is not None:
        path = ctx.resolve(named)
        try:
            manifest.check(path, run_id=None, step=None)
        except BrokenCheckpoint as broken:
            raise ConfigError(f"resume_from_checkpoint: {named}: {broken}; give a checkpoint-N directory") from broken
        found = Checkpoint(manifest.step_of(path), path)
    if found is not None and (found.path / "adapter_config.json").exists() != (cfg.adapter is not None):
        kind = "a full fine-tune" if cfg.adapter else "an adapter"
        raise ConfigError(f"resume_from_checkpoint: {found.path.name} is of {kind}, which this config does not train")
    return found


def bring_base(model: ModelSection, resume: Checkpoint | None, ctx: Context) -> tuple[ModelSection, Base]:
    """The section with every place a directory here, and which base that is.

    Raises ConfigError where the checkpoint was trained on another one, or where another machine has another.
    """
    section, commit = on_this_machine(at_commit_of(model, resume), ctx, wanted="all")
    base = Base.of(Path(section.base), repo=model.base, commit=commit)
    check_same(base, resume)
    ctx.mesh.check_same("base_model", base.weights)
    return section, base


def make_reproducible(seed: int, progress: Progress, ctx: Context) -> None:
    """Fix what the last bits of a sum depend on: seeds, the number of threads, the choice of kernels."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    transformers.logging.set_verbosity_warning()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    if ctx.device.kind == "cuda":
        # Where there is no deterministic kernel torch says so in the log and goes on.
        torch.use_deterministic_algorithms(True, warn_only=True)
        # It finds bugs, at the price of bandwidth.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        os.environ.setdefault("FLASH_ATTENTION_DETERMINISTIC", "1")
    if not progress.num_threads:
        limit = ctx.job.resources.cpus
        available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        num_sharing = rank_on_machine()[1]
        shared = (int(limit) if limit else available) // num_sharing
        progress.num_threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, shared))
    torch.set_num_threads(progress.num_threads)
