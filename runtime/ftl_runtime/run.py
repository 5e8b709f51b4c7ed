"""The one build path: from a job to a finished model."""

import inspect
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback

from ftl.config.data import DataSection
from ftl.config.train import TrainConfig
from ftl.contract import BUNDLE_CONFIG, CHECKPOINTS_DIR, JobSpec, RunResult, Task
from ftl.errors import ConfigError, PreemptedError
from ftl.tokens import TokenizerView
from ftl_runtime import preflight, ranks
from ftl_runtime.beginning import find_checkpoint, join_ranks, make_reproducible
from ftl_runtime.checkpoint.base import Base, at_commit_of, check_same
from ftl_runtime.checkpoint.store import Checkpoint
from ftl_runtime.checkpoint.volume import VolumeStore
from ftl_runtime.context import Context, Emit
from ftl_runtime.data.collate import Collator, Documents
from ftl_runtime.data.layout import Collate, collator_of, lies_end_to_end
from ftl_runtime.data.pictured import PictureCollator
from ftl_runtime.data.training import open_data, prepare_data
from ftl_runtime.evaluate.harness import after_training, lm_eval
from ftl_runtime.evaluate.writing import plan_writing
from ftl_runtime.finish import finish
from ftl_runtime.kernels.head import splits_off_head
from ftl_runtime.memory import BatchTooLargeError, fitted, is_out_of_memory, memory_of
from ftl_runtime.merge.from_shards import merge_shards
from ftl_runtime.merge.lora import merge
from ftl_runtime.mesh import Mesh
from ftl_runtime.models.attention import plan_attention
from ftl_runtime.models.build import build_model, can_be_asked
from ftl_runtime.models.compile import compile_layers
from ftl_runtime.models.hub import on_this_machine
from ftl_runtime.models.load import architecture, head_of, load_config
from ftl_runtime.models.noise import add_noise
from ftl_runtime.models.packing import mask_window, settle
from ftl_runtime.models.processor import copy_processor, load_processor
from ftl_runtime.models.recompute import footprint_of, settle_recompute
from ftl_runtime.models.reference import find_reference
from ftl_runtime.models.tokenizer import load_tokenizer, view_of
from ftl_runtime.objectives import OBJECTIVES
from ftl_runtime.parallel import deepspeed, fsdp, sequence, tensor
from ftl_runtime.parallel import shards as sharded_files
from ftl_runtime.rounding import qat
from ftl_runtime.rounding.ptq import quantize
from ftl_runtime.stop import StopFlag
from ftl_runtime.tracking.session import tracked
from ftl_runtime.train.args import compute_dtype, training_args
from ftl_runtime.train.batches import Loaders
from ftl_runtime.train.best import Selection
from ftl_runtime.train.history import History
from ftl_runtime.train.lisa import Lisa
from ftl_runtime.train.losswatch import LossWatch
from ftl_runtime.train.optim import make_optimizer
from ftl_runtime.train.precompute import with_reference
from ftl_runtime.train.progress import Progress
from ftl_runtime.train.rates import make_scheduler
from ftl_runtime.train.relora import Relora
from ftl_runtime.train.rollout import plan_rollouts
from ftl_runtime.train.schedule import Schedule, plan_schedule
from ftl_runtime.train.scoring import Inputs, Reference
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
    shards, ctx = join_ranks(cfg, ctx)
    cfg = ranks.share(cfg, ctx.device)  # rank 0 knows what memory sufficed for
    resume = ctx.mesh.bring(find_checkpoint(cfg, ctx) if ctx.device.is_main else None)
    progress = Progress.load(resume.path) if resume else Progress()
    history = History.load(resume.path) if resume else History()
    ctx = replace(ctx, emit=history.hearing(ctx.emit))
    make_reproducible(cfg.optim.seed, progress, ctx)

    ctx.phase("model")
    section, base_revision = on_this_machine(at_commit_of(cfg.model, resume), ctx, wanted="all")
    own_base = Base.of(Path(section.base), repo=cfg.model.base, commit=base_revision)
    check_same(own_base, resume)
    ctx.mesh.check_same("base_model", own_base.weights)
    cfg = cfg.model_copy(update={"model": section})
    objective = OBJECTIVES[cfg.objective.kind]
    tokenizer = load_tokenizer(cfg.model, cfg.data, ctx)
    num_classes = cfg.objective.num_labels or objective.num_classes
    head = head_of(cfg)
    config = load_config(cfg.model, ctx, head=head, num_classes=num_classes)
    dtype = compute_dtype(cfg.precision, ctx.device)
    attention = plan_attention(
        cfg.model.attention,
        config,
        architecture(config, head),
        is_packed=_is_packed(cfg.data),
        device=ctx.device,
        dtype=dtype,
        gives_borders=objective.layout == "texts",
    )
    split = sequence.split(attention, ctx.device) if cfg.parallel.context_size > 1 else None

    ctx.phase("data")
    with ranks.main_first(ctx.device):
        view = view_of(tokenizer, cfg.data)
        data = open_data(cfg, view, progress, ctx)
    ctx.mesh.check_same("datasets", [use.identity for use in data.used])

    ctx.phase("model")
    zero = deepspeed.plan(cfg.parallel.zero, cfg.optim, dtype, ctx.device)
    if cfg.parallel.zero is not None and zero is None:
        ctx.warn("deepspeed has no effect with one process that offloads nothing: there is nothing to share with")
    base, model = build_model(cfg, config, tokenizer, attention.implementation, resume, progress, zero, ctx)
    inputs, collate = _rows_as_inputs(cfg, base, config, tokenizer, view, attention.documents, dtype, ctx)
    if split is not None:
        sequence.check(inputs, base)
    reference = None
    if cfg.objective.is_compared:
        find = partial(find_reference, cfg, config, tokenizer, attention.implementation, model, ctx)
        if cfg.objective.precompute_reference:
            is_untrained = resume is None and cfg.adapter is None
            known = partial(Reference, model, has_adapter=False) if is_untrained else find
            batch_size = cfg.optim.eval_batch_size or cfg.optim.micro_batch_size
            data = with_reference(data, known, collate, inputs, batch_size=batch_size, dtype=dtype, ctx=ctx)
        else:
            reference = find()
    load = partial(footprint_of, model, base, cfg, dtype, ctx, objective.layout, makes_logits=not inputs.splits_head)
    recompute = settle_recompute(model, cfg, ctx, footprint=load)
    compile_layers(model, cfg.kernels, recompute, ctx)
    loaders = Loaders(
        data.train,
        data.eval,
        data.order,
        collate,
        batch_size=cfg.optim.micro_batch_size,
        eval_batch_size=cfg.optim.eval_batch_size or cfg.optim.micro_batch_size,
        device=ctx.device,
        in_step=shards is not None or (zero is not None and zero.cuts_weights),
        drop_last=cfg.data.drop_last and not cfg.data.pretraining_dataset,
    )
    schedule = plan_schedule(
        cfg.optim, cfg.output, num_micro_batches=len(loaders.train), has_eval=loaders.eval is not None
    )
    if shards is not None:
        fsdp.shard(model, cfg.parallel, dtype, ctx.device)
    cut = tensor.cut(model, dtype, ctx.device) if cfg.parallel.tensor_size > 1 else None
    if resume and sharded_files.are_in(resume.path):
        other = "deepspeed" if zero is not None else "tensor_parallel_size" if cut is not None else None
        if other is not None:
            raise ConfigError(f"{other}: cannot go on from {resume.path.name}, whose shards fsdp_config has written")
        sharded_files.read_weights(model, resume.path, ctx.device)
    trainer = Trainer(
        model,
        objective,
        cfg.objective,
        loaders,
        training_args(cfg.optim, cfg.precision, cfg.parallel, schedule, ctx, has_own_format=zero is not None),
        schedule,
        ctx,
        make_optimizer=partial(make_optimizer, optim=cfg.optim, rates=cfg.rates, warmup_steps=schedule.warmup_steps),
        make_scheduler=partial(make_scheduler, optim=cfg.optim, rates=cfg.rates, schedule=schedule),
        progress=progress,
        selection=Selection(cfg.evaluation, progress, saves_best=cfg.output.save_strategy == "best"),
        loss_watch=LossWatch(cfg.watch, progress),
        keep_checkpoints=cfg.output.save_total_limit,
        inputs=inputs,
        cut=cut,
        split=split,
        reference=reference,
        rollouts=plan_rollouts(cfg, tokenizer, ctx),
        writes_shards=shards is not None and shards.saves_in_shards,
        writing=plan_writing(
            cfg.evaluation,
            data.eval if objective.layout == "texts" else None,
            tokenizer,
            batch_size=cfg.optim.eval_batch_size or cfg.optim.micro_batch_size,
        ),
        zero=None if zero is None else deepspeed.Zero(zero),
    )
    if cfg.trained.lisa_num_layers is not None:
        lisa: TrainerCallback = Lisa(model, cfg.trained, seed=cfg.optim.seed)
        trainer.add_callback(lisa)
    if cfg.rounding.qat is not None:
        trainer.add_callback(qat.Delay(model, cfg.rounding.qat.fake_quant_after_n_steps))
    trainer.save_along(lambda stage, contents: own_base.write(stage))
    trainer.save_along(lambda stage, contents: history.save(stage))
    relora = _add_restarts(trainer, model, cfg, resume)
    with watching(trainer, cfg.watch, ctx):
        _train(trainer, schedule, resume, history, ctx)
    return finish(
        trainer,
        tokenizer,
        data.used,
        cfg.adapter,
        ctx,
        base_revision=base_revision,
        best_step=trainer.load_best() if cfg.evaluation.loads_best else None,
        merge=relora.merged if relora else None,
        measure=after_training(cfg.harness, tokenizer, dtype, ctx),
        recompute=str(recompute),
        add_files=partial(copy_processor, cfg.model, ctx=ctx) if cfg.data.processor is not None else None,
        writes_shards=shards is not None and shards.finishes_in_shards and cfg.adapter is None,
    )


def _rows_as_inputs(
    cfg: TrainConfig,
    base: PreTrainedModel,
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    view: TokenizerView,
    documents: Documents,
    dtype: torch.dtype,
    ctx: Context,
) -> tuple[Inputs, Collate]:
    """What of a batch the model is given, and what makes a batch of rows. Prepares the base for it."""
    objective = OBJECTIVES[cfg.objective.kind]
    if cfg.trained.noise_alpha is not None:
        rows_in_one = cfg.optim.micro_batch_size if documents == "borders" else 1
        add_noise(base.get_input_embeddings(), cfg.trained.noise_alpha, rows_in_one=rows_in_one)
    if _is_packed(cfg.data) and documents != "borders":
        documents = settle(base, config, documents)
    inputs = Inputs(
        accepted=frozenset(inspect.signature(base.forward).parameters),
        splits_head=objective.layout == "texts" and can_be_asked(base, cfg, ctx) and splits_off_head(base),
        scales_by_probability=cfg.objective.scales_by_probability,
    )
    texts = Collator(
        tokenizer.pad_token_id,
        cfg.data.sequence_len,
        cfg.data.pad_to_sequence_len,
        documents,
        dtype=dtype,
        window=mask_window(config),
        is_flat=lies_end_to_end(cfg.data, documents),
    )
    if cfg.data.processor is None:
        return inputs, collator_of(objective.layout, texts)
    processor = load_processor(cfg.data.processor, cfg.model, config, tokenizer, ctx)
    return inputs, PictureCollator(processor, view, cfg.data, texts.pad_id)


def _add_restarts(trainer: Trainer, model: nn.Module, cfg: TrainConfig, resume: Checkpoint | None) -> Relora | None:
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


def _is_packed(data: DataSection) -> bool:
    """Whether any row holds several documents."""
    is_filled = bool(data.pretraining_dataset) and data.pretraining_sample_concatenation
    return data.sample_packing or bool(data.eval_sample_packing) or is_filled


def _train(trainer: Trainer, schedule: Schedule, resume: Checkpoint | None, history: History, ctx: Context) -> None:
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
        where = f"stopped at step {trainer.stopped_at} of {schedule.max_steps}"
        if trainer.unsaved is None:
            raise PreemptedError(f"{where}; it can be resumed from there")
        left = f"it goes on from step {newest.step}" if newest else "it starts from the beginning"
        raise PreemptedError(f"{where}, which was not saved ({trainer.unsaved}); {left}")
