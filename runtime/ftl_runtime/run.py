"""The one build path: from a job to a finished model."""

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from peft import PeftModel
from torch import nn
from transformers import PreTrainedTokenizerBase, TrainerCallback

from ftl.config.train import TrainConfig
from ftl.contract import BUNDLE_CONFIG, CHECKPOINTS_DIR, JobSpec, RunResult, Task
from ftl.errors import ConfigError, PreemptedError
from ftl_runtime import preflight, ranks
from ftl_runtime.beginning import bring_base, find_checkpoint, join_ranks, make_reproducible
from ftl_runtime.checkpoint.store import Checkpoint
from ftl_runtime.checkpoint.volume import VolumeStore
from ftl_runtime.context import Context, Device, Emit
from ftl_runtime.data.training import TrainingData, open_data, prepare_data
from ftl_runtime.evaluate.harness import after_training, lm_eval
from ftl_runtime.evaluate.writing import plan_writing
from ftl_runtime.finish import finish
from ftl_runtime.memory import BatchTooLargeError, fitted, is_out_of_memory, memory_of
from ftl_runtime.merge.from_shards import merge_shards
from ftl_runtime.merge.lora import merge
from ftl_runtime.mesh import Mesh
from ftl_runtime.models.build import build_model
from ftl_runtime.models.built import Built
from ftl_runtime.models.compile import compile_layers
from ftl_runtime.models.hub import on_this_machine
from ftl_runtime.models.plan import plan_model
from ftl_runtime.models.processor import copy_processor
from ftl_runtime.models.recompute import settle_recompute
from ftl_runtime.models.reference import settle_reference
from ftl_runtime.models.tokenizer import load_tokenizer, view_of
from ftl_runtime.objectives import OBJECTIVES
from ftl_runtime.parallel import fsdp, sequence
from ftl_runtime.parallel.held import Held, hold
from ftl_runtime.rounding import qat
from ftl_runtime.rounding.ptq import quantize
from ftl_runtime.stop import StopFlag
from ftl_runtime.tracking.session import tracked
from ftl_runtime.train.args import training_args
from ftl_runtime.train.asked import Asked
from ftl_runtime.train.batches import Loaders
from ftl_runtime.train.best import Selection
from ftl_runtime.train.history import History
from ftl_runtime.train.lisa import Lisa
from ftl_runtime.train.losswatch import LossWatch
from ftl_runtime.train.optim import make_optimizer
from ftl_runtime.train.progress import Progress
from ftl_runtime.train.rates import make_scheduler
from ftl_runtime.train.relora import Relora
from ftl_runtime.train.rollout import plan_rollouts
from ftl_runtime.train.schedule import plan_schedule
from ftl_runtime.train.trainer import Trainer
from ftl_runtime.train.watchers import watching


def do_job(job: JobSpec, emit: Emit, stop: StopFlag) -> None:
    """Read the job's config and do its task. Raises FtlError; PreemptedError when asked to stop before the end."""
    assert job.paths is not None, "the supervisor refuses a job without paths"
    emit("phase", {"name": "starting"})
    run_dir = Path(job.paths.run)
    cfg = TrainConfig.read_json((Path(job.paths.bundle) / BUNDLE_CONFIG).read_bytes())
    device = preflight.probe(job, cfg.parallel)
    ctx = Context(
        job=job,
        paths=job.paths,
        emit=emit,
        store=VolumeStore(run_dir / CHECKPOINTS_DIR, job.run_id, emit),
        stop=stop,
        device=device,
        started=float(os.environ["FTL_STARTED"]),
        mesh=Mesh(device),
    )
    if job.task != "train":
        _OTHER_TASKS[job.task](cfg, ctx)
    else:
        cfg = fitted(cfg, ctx.run_dir)
        with tracked(cfg, ctx) as told:
            run(cfg, told)


def preprocess(cfg: TrainConfig, ctx: Context) -> None:
    """Fill the token cache for `cfg`; needs no GPU, and the model's weights only where they are to be fetched."""
    ctx.phase("data")
    model, _ = on_this_machine(cfg.model, ctx, wanted="all" if ctx.job.fetches_model else "tokenizer")
    tokenizer = load_tokenizer(model, cfg.data, ctx)
    prepare_data(cfg, view_of(tokenizer, cfg.data), ctx)


_OTHER_TASKS: dict[Task, Callable[[TrainConfig, Context], None]] = {
    "preprocess": preprocess,
    "merge": merge,
    "merge-shards": merge_shards,
    "lm-eval": lm_eval,
    "quantize": quantize,
}
"""What is done in place of a training, in one process."""


def run(cfg: TrainConfig, ctx: Context) -> RunResult:
    """Train `cfg` from where this run left off, and leave the model, its manifest and the result behind."""
    ctx = join_ranks(cfg, ctx)
    cfg = ranks.share(cfg, ctx.device)  # rank 0 knows what memory sufficed for
    resume = ctx.mesh.bring(find_checkpoint(cfg, ctx) if ctx.device.is_main else None)
    progress = Progress.load(resume.path) if resume else Progress()
    history = History.load(resume.path) if resume else History()
    ctx = replace(ctx, emit=history.hearing(ctx.emit))
    make_reproducible(cfg.optim.seed, progress, ctx)

    ctx.phase("model")
    section, origin = bring_base(cfg.model, resume, ctx)
    cfg = cfg.model_copy(update={"model": section})
    plan = plan_model(cfg, ctx)
    split = sequence.split(plan.attention, ctx.device) if cfg.parallel.context_size > 1 else None

    ctx.phase("data")
    with ranks.main_first(ctx.device):
        view = view_of(plan.tokenizer, cfg.data)
        data = open_data(cfg, view, progress, ctx)
    ctx.mesh.check_same("datasets", [use.identity for use in data.used])

    ctx.phase("model")
    built = build_model(cfg, plan, view, resume, progress, ctx)
    if split is not None:
        sequence.check(built.inputs, built.base)
    data, reference = settle_reference(cfg, plan, built, data, resume, ctx)
    recompute = settle_recompute(cfg, plan, built, ctx)
    compile_layers(built.model, cfg.kernels, recompute, ctx)
    loaders = _make_loaders(cfg, built, data, ctx.device)
    held = hold(built.model, cfg.parallel, built.zero, plan.dtype, ctx.device)
    if resume:
        held.read_shards(resume.path)
    objective = OBJECTIVES[cfg.objective.kind]
    asked = Asked(objective, cfg.objective, built.inputs, reference, split, ctx.device)
    trainer = _make_trainer(cfg, held, asked, loaders, data, plan.tokenizer, progress, ctx)
    trainer.save_along(lambda stage, contents: origin.write(stage))
    trainer.save_along(lambda stage, contents: history.save(stage))
    relora = _change_along(trainer, built.model, cfg, resume)
    with watching(trainer, cfg.watch, ctx):
        _train(trainer, resume, history, ctx)
    sharing = fsdp.in_use(cfg.parallel, ctx.device)
    return finish(
        trainer,
        plan.tokenizer,
        data.used,
        cfg.adapter,
        ctx,
        base_revision=origin.commit,
        best_step=trainer.load_best() if cfg.evaluation.loads_best else None,
        merge=relora.merged if relora else None,
        measure=after_training(cfg.harness, plan.tokenizer, plan.dtype, ctx),
        recompute=str(recompute),
        add_files=partial(copy_processor, cfg.model, ctx=ctx) if cfg.data.processor is not None else None,
        writes_shards=sharing is not None and sharing.finishes_in_shards and cfg.adapter is None,
    )


def _make_loaders(cfg: TrainConfig, built: Built, data: TrainingData, device: Device) -> Loaders:
    cuts_weights = built.zero is not None and built.zero.cuts_weights
    return Loaders(
        data.train,
        data.eval,
        data.order,
        built.collate,
        batch_size=cfg.optim.micro_batch_size,
        eval_batch_size=cfg.optim.eval_batch_size_or_default,
        device=device,
        in_step=fsdp.in_use(cfg.parallel, device) is not None or cuts_weights,
        drop_last=cfg.data.drop_last and not cfg.data.pretraining_dataset,
    )


def _make_trainer(
    cfg: TrainConfig,
    held: Held,
    asked: Asked,
    loaders: Loaders,
    data: TrainingData,
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress,
    ctx: Context,
) -> Trainer:
    has_eval, has_own_format = loaders.eval is not None, held.zero is not None
    schedule = plan_schedule(cfg.optim, cfg.output, num_micro_batches=len(loaders.train), has_eval=has_eval)
    return Trainer(
        held,
        asked,
        loaders,
        training_args(cfg.optim, cfg.precision, cfg.parallel, schedule, ctx, has_own_format=has_own_format),
        schedule,
        ctx,
        make_optimizer=partial(make_optimizer, optim=cfg.optim, rates=cfg.rates, warmup_steps=schedule.warmup_steps),
        make_scheduler=partial(make_scheduler, optim=cfg.optim, rates=cfg.rates, schedule=schedule),
        progress=progress,
        selection=Selection(cfg.evaluation, progress, saves_best=cfg.output.save_strategy == "best"),
        loss_watch=LossWatch(cfg.watch, progress),
        keep_checkpoints=cfg.output.save_total_limit,
        rollouts=plan_rollouts(cfg, tokenizer, ctx),
        writing=plan_writing(
            cfg.evaluation,
            data.eval if asked.objective.layout == "texts" else None,
            tokenizer,
            batch_size=cfg.optim.eval_batch_size_or_default,
        ),
    )


def _change_along(trainer: Trainer, model: nn.Module, cfg: TrainConfig, resume: Checkpoint | None) -> Relora | None:
    """Have the model changed between steps as the config says; the restarts of its adapter, if it has any."""
    if cfg.trained.lisa_num_layers is not None:
        lisa: TrainerCallback = Lisa(model, cfg.trained, seed=cfg.optim.seed)
        trainer.add_callback(lisa)
    if cfg.rounding.qat is not None:
        trainer.add_callback(qat.Delay(model, cfg.rounding.qat.fake_quant_after_n_steps))
    if cfg.adapter is None or not cfg.adapter.restarts:
        return None
    assert isinstance(model, PeftModel) and cfg.rates.restart_steps is not None, "the rules want both"
    relora = Relora(model, cfg.adapter, every_steps=cfg.rates.restart_steps, seed=cfg.optim.seed)
    if resume:
        relora.load(resume.path)
    callback: TrainerCallback = relora
    trainer.add_callback(callback)
    trainer.save_along(relora.save)
    return relora


def _train(trainer: Trainer, resume: Checkpoint | None, history: History, ctx: Context) -> None:
    """Train to the end. Raises PreemptedError when asked to stop before."""
    if resume:
        ctx.emit("resumed", {"step": resume.step, "checkpoint": f"{CHECKPOINTS_DIR}/{resume.path.name}"})
        history.tell(ctx)
    ctx.stop.hold()
    try:
        trainer.train(resume_from_checkpoint=str(resume.path) if resume else None)
    except Exception as error:
        if is_out_of_memory(error):
            told = f"out of {memory_of(error)} memory after step {trainer.state.global_step}"
            raise BatchTooLargeError(told) from error
        if resume is not None and isinstance(error, pickle.UnpicklingError):
            told = "holds a pickle that would run code, and is not gone on from; remove it, and find out who wrote it"
            raise ConfigError(f"{resume.path.name}: {told}") from error
        raise
    if trainer.stopped_at is not None:
        newest = ranks.share(trainer.saver.saved or resume, ctx.device)
        ctx.emit("stopped", {"step": trainer.stopped_at, "checkpoint": newest.step if newest else None})
        where = f"stopped at step {trainer.stopped_at} of {trainer.schedule.max_steps}"
        if trainer.unsaved is None:
            raise PreemptedError(f"{where}; it can be resumed from there")
        left = f"it goes on from step {newest.step}" if newest else "it starts from the beginning"
        raise PreemptedError(f"{where}, which was not saved ({trainer.unsaved}); {left}")
