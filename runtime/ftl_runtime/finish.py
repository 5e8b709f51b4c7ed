"""The last steps: the model in its final form, then the result, whose presence means done."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ftl.config.adapter import LoraSection
from ftl.contract import RESULT_FILE, DatasetUse, RunResult, Scores
from ftl_runtime import preflight, ranks
from ftl_runtime.checkpoint import manifest
from ftl_runtime.checkpoint.volume import storage_errors
from ftl_runtime.context import Context
from ftl_runtime.models.adapter import settle_on_base
from ftl_runtime.models.quantize import count_parameters, describe
from ftl_runtime.output import sealed_output
from ftl_runtime.parallel import shards
from ftl_runtime.train.averaging import averaged_weights
from ftl_runtime.train.progress import peak_memory_gib
from ftl_runtime.train.trainer import Trainer

_PARTS_DIR = ".tmp-shards"


def finish(
    trainer: Trainer,
    tokenizer: PreTrainedTokenizerBase,
    used: tuple[DatasetUse, ...],
    adapter: LoraSection | None,
    ctx: Context,
    *,
    base_revision: str | None = None,
    best_step: int | None = None,
    merge: Callable[[], PreTrainedModel] | None = None,
    measure: Callable[[nn.Module], Scores] | None = None,
    recompute: str = "none",
    add_files: Callable[[Path], None] | None = None,
    writes_shards: bool = False,
) -> RunResult:
    """Write RUN/output and after it RUN/result.json. Raises StorageError when they cannot be written.

    `base_revision` is the commit of the base where it is a Hub repository.
    `best_step` is that of the weights in the model, where they are not the last ones. `merge` gives the model to save
    where it is not the one that was trained. `measure` gives the scores of the model that was saved. `add_files` puts
    further files beside it. With `writes_shards` each rank writes its part of the model.
    """
    ctx.phase("finishing")
    facts = {"best_step": best_step, "base_revision": base_revision, "recompute": recompute}
    result = _result(trainer, used, ctx).model_copy(update=facts)
    parts = _write_shards(trainer, ctx) if writes_shards else None
    weights = None if writes_shards else trainer.held.whole_weights()
    if ctx.device.is_main:
        with storage_errors(ctx.run_dir):
            model = _write_output(trainer, weights, tokenizer, adapter, merge, add_files, parts, ctx)
        if measure is not None:
            with averaged_weights(trainer.optimizer):
                result = result.model_copy(update={"scores": measure(model)})
        with storage_errors(ctx.run_dir):
            manifest.replace_synced(ctx.run_dir / RESULT_FILE, result.model_dump_json(indent=1).encode())
        ctx.emit("result", result.model_dump(mode="json"))
    ranks.wait(ctx.device)
    return result


def _write_shards(trainer: Trainer, ctx: Context) -> Path:
    """Write each rank's part of the model into a directory beside RUN/output. All ranks must ask."""
    parts = ctx.run_dir / _PARTS_DIR
    assert isinstance(trainer.model, nn.Module)
    with storage_errors(ctx.run_dir):
        if ctx.device.is_main:
            shutil.rmtree(parts, ignore_errors=True)
            parts.mkdir()
        ranks.wait(ctx.device)
        shards.write_weights(trainer.model, ctx.mesh.here(parts), ctx.device)
        ctx.mesh.collect(parts)
    return parts


def _write_output(
    trainer: Trainer,
    weights: dict[str, Tensor] | None,
    tokenizer: PreTrainedTokenizerBase,
    adapter: LoraSection | None,
    merge: Callable[[], PreTrainedModel] | None,
    add_files: Callable[[Path], None] | None,
    parts: Path | None,
    ctx: Context,
) -> nn.Module:
    """The model that was written. What is in `parts` goes along, in place of the weights."""
    with sealed_output(ctx, step=trainer.state.global_step) as stage:
        if parts is not None:
            (parts / shards.WEIGHTS_DIR).rename(stage / shards.WEIGHTS_DIR)
            parts.rmdir()
        model = _save_model(trainer, weights, merge, stage)
        if adapter is not None and merge is None:
            settle_on_base(adapter, stage, ctx)
        tokenizer.save_pretrained(stage)
        if add_files is not None:
            add_files(stage)
    return model


def _save_model(
    trainer: Trainer,
    weights: dict[str, Tensor] | None,
    merge: Callable[[], PreTrainedModel] | None,
    stage: Path,
) -> nn.Module:
    # Any: a model of transformers, maybe in peft's
    model: Any = trainer.accelerator.unwrap_model(trainer.model) if merge is None else merge()
    model.config.use_cache = True  # off while training; whoever generates with this model wants it
    if shards.are_in(stage):
        shards.describe(model, stage)
    else:
        with averaged_weights(trainer.optimizer):
            trainer.held.save_model(model, stage, weights)
    (stage / "README.md").unlink(missing_ok=True)  # peft's model card names local paths
    generation = getattr(model, "generation_config", None)
    if generation is not None:
        generation.save_pretrained(stage)
    saved: nn.Module = model
    return saved


def _result(trainer: Trainer, used: tuple[DatasetUse, ...], ctx: Context) -> RunResult:
    first, last = trainer.mean_losses()
    progress = trainer.progress
    model = trainer.accelerator.unwrap_model(trainer.model)
    num_parameters, num_trainable = count_parameters(model)
    seconds = trainer.stopwatch.read()
    tokens = progress.tokens - trainer.start_tokens
    return RunResult(
        run_id=ctx.job.run_id,
        attempt=ctx.job.attempt,
        steps=trainer.state.global_step,
        epochs=round(trainer.state.epoch or 0.0, 6),
        tokens=progress.tokens,
        train_loss_first=first,
        train_loss_last=last,
        eval_loss_first=progress.first_eval_loss,
        eval_loss_last=progress.last_eval_loss,
        metrics=progress.metrics,
        tokens_per_s=tokens / seconds if tokens else None,
        seconds=ctx.seconds(),
        peak_memory_gib=peak_memory_gib(ctx.device),
        num_parameters=num_parameters,
        num_trainable=num_trainable,
        ranks=ctx.device.num_ranks,
        spread=trainer.spread,
        quantisation=describe(model.config),
        versions=preflight.versions(),
        datasets=used,
    )
