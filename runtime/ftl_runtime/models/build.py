"""The model that is trained: the base as this run holds it, with all that the config puts into or around it."""

from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from ftl.config.train import TrainConfig
from ftl.tokens import TokenizerView
from ftl_runtime import preflight
from ftl_runtime.checkpoint.store import Checkpoint
from ftl_runtime.context import Context
from ftl_runtime.kernels import lora
from ftl_runtime.kernels.tiles import tile_mlps
from ftl_runtime.models.adapter import add_adapter, check_new_tokens
from ftl_runtime.models.built import Built
from ftl_runtime.models.fuse import apply_liger
from ftl_runtime.models.inputs import plan_inputs
from ftl_runtime.models.load import head_of, load_model, weights_dtype
from ftl_runtime.models.noise import add_noise
from ftl_runtime.models.partial import choose_trained
from ftl_runtime.models.plan import ModelPlan
from ftl_runtime.models.processor import freeze_encoders
from ftl_runtime.models.quantize import count_parameters, quantisation
from ftl_runtime.models.tokenizer import fit_to_tokenizer, new_tokens
from ftl_runtime.parallel import deepspeed, fsdp
from ftl_runtime.parallel import shards as sharded_files
from ftl_runtime.rounding import qat
from ftl_runtime.rounding.fp8 import compute_in_fp8
from ftl_runtime.train.progress import Progress


def build_model(
    cfg: TrainConfig,
    plan: ModelPlan,
    view: TokenizerView,
    resume: Checkpoint | None,
    progress: Progress,
    ctx: Context,
) -> Built:
    """The model with the weights of `resume`, those in shards apart, and what it takes to give it rows."""
    zero = deepspeed.plan(cfg.parallel.zero, cfg.optim, plan.dtype, ctx.device)
    if cfg.parallel.zero is not None and zero is None:
        ctx.warn("deepspeed has no effect with one process that offloads nothing: there is nothing to share with")
    base = _load_base(cfg, plan, resume, zero, ctx)
    model = _make_trainable(base, cfg, plan, resume, progress, ctx)
    inputs, collate = plan_inputs(cfg, plan, base, view, ctx)
    return Built(base, model, inputs, collate, zero)


def _load_base(
    cfg: TrainConfig, plan: ModelPlan, resume: Checkpoint | None, zero: deepspeed.Plan | None, ctx: Context
) -> PreTrainedModel:
    """On its device, unless it is brought there in parts; with a row of the embeddings for every token."""
    has_adapter = cfg.adapter is not None
    dtype = weights_dtype(cfg.precision, plan.dtype, has_adapter=has_adapter)
    cuts_weights = zero is not None and zero.cuts_weights
    if cuts_weights and resume is None and plan.config.dtype == plan.dtype:
        dtype = plan.dtype  # as the base is stored, which loses nothing: the copy in fp32 is made a shard at a time
    base = load_model(
        cfg.model,
        plan.config,
        ctx,
        dtype=dtype,
        attention=plan.attention.implementation,
        seed=cfg.optim.seed,
        head=head_of(cfg),
        quantisation=quantisation(plan.config, cfg.quant, plan.dtype, has_adapter=has_adapter),
        checkpoint=None if has_adapter else _whole_weights(resume),
        in_shards=fsdp.in_use(cfg.parallel, ctx.device) is not None,
    )
    is_moved_later = cuts_weights or cfg.parallel.fsdp is not None or cfg.parallel.tensor_size > 1
    if ctx.device.kind == "cuda" and not is_moved_later:
        base.to(torch.device("cuda"))  # type: ignore[arg-type]  # transformers wraps it untyped
    apply_liger(base, cfg.kernels, ctx)
    check_new_tokens(new_tokens(cfg.model, ctx), base, cfg.adapter)
    fit_to_tokenizer(base, plan.tokenizer, cfg.model, seed=cfg.optim.seed)
    return base


def _make_trainable(
    base: PreTrainedModel,
    cfg: TrainConfig,
    plan: ModelPlan,
    resume: Checkpoint | None,
    progress: Progress,
    ctx: Context,
) -> nn.Module:
    """The base with the adapter if there is one, with what is trained of it chosen, and how its layers compute."""
    spares_encoders = cfg.trained.freezes_encoders
    model = add_adapter(
        base,
        cfg.adapter,
        ctx,
        base=cfg.model,
        head=head_of(cfg),
        checkpoint=_whole_weights(resume),
        spares_encoders=spares_encoders,
    )
    choose_trained(base, cfg.trained, progress, ctx)
    if spares_encoders:
        freeze_encoders(model, base, ctx)
    if cfg.rounding.qat is not None:
        qat.prepare(base, cfg.rounding.qat)
    if cfg.precision.fp8:
        compute_in_fp8(base)
    lora.fuse(model)
    if cfg.kernels.tiled_mlp and not tile_mlps(model, cfg.kernels.num_tiles):
        ctx.warn(f"tiled_mlp: a {plan.config.model_type} model has no MLP that stands by itself; it is computed whole")
    _, num_trainable = count_parameters(model)
    preflight.check_disk(num_trainable, ctx)
    if cfg.trained.noise_alpha is not None:
        rows_in_one = cfg.optim.micro_batch_size if plan.attention.documents == "borders" else 1
        add_noise(base.get_input_embeddings(), cfg.trained.noise_alpha, rows_in_one=rows_in_one)
    return model


def _whole_weights(resume: Checkpoint | None) -> Path | None:
    """The directory of the checkpoint, unless its weights are in shards: those are read when the ranks hold theirs."""
    return resume.path if resume and not sharded_files.are_in(resume.path) else None
