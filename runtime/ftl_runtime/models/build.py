"""The model that is trained: the base as this run holds it, with all that the config puts into or around it."""

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ftl.config.model import Attention
from ftl.config.train import TrainConfig
from ftl_runtime import preflight
from ftl_runtime.checkpoint.store import Checkpoint
from ftl_runtime.context import Context
from ftl_runtime.kernels import lora
from ftl_runtime.kernels.tiles import tile_mlps
from ftl_runtime.models.adapter import add_adapter, check_new_tokens
from ftl_runtime.models.fuse import apply_liger, has_fused_layers
from ftl_runtime.models.load import head_of, load_model, weights_dtype
from ftl_runtime.models.partial import choose_trained
from ftl_runtime.models.processor import freeze_encoders
from ftl_runtime.models.quantize import count_parameters, quantisation
from ftl_runtime.models.tokenizer import fit_to_tokenizer, new_tokens
from ftl_runtime.parallel import deepspeed
from ftl_runtime.parallel import shards as sharded_files
from ftl_runtime.rounding import qat
from ftl_runtime.rounding.fp8 import compute_in_fp8
from ftl_runtime.train.args import compute_dtype
from ftl_runtime.train.progress import Progress


def build_model(
    cfg: TrainConfig,
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    attention: Attention,
    resume: Checkpoint | None,
    progress: Progress,
    zero: deepspeed.Plan | None,
    ctx: Context,
) -> tuple[PreTrainedModel, nn.Module]:
    """The base model, and that model with the adapter if there is one."""
    has_adapter, head = cfg.adapter is not None, head_of(cfg)
    compute = compute_dtype(cfg.precision, ctx.device)
    dtype = weights_dtype(cfg.precision, compute, has_adapter=has_adapter)
    cuts_weights = zero is not None and zero.cuts_weights
    if cuts_weights and resume is None and config.dtype == compute:
        dtype = compute  # as the base is stored, which loses nothing: the copy in fp32 is made a shard at a time
    is_cut = cfg.parallel.fsdp is not None and ctx.device.num_ranks > 1
    checkpoint = resume.path if resume and not sharded_files.are_in(resume.path) else None  # shards are read later
    base = load_model(
        cfg.model,
        config,
        ctx,
        dtype=dtype,
        attention=attention,
        seed=cfg.optim.seed,
        head=head,
        quantisation=quantisation(config, cfg.quant, compute, has_adapter=has_adapter),
        checkpoint=None if has_adapter else checkpoint,
        in_shards=is_cut,
    )
    is_moved_later = cuts_weights or cfg.parallel.fsdp is not None or cfg.parallel.tensor_size > 1
    if ctx.device.kind == "cuda" and not is_moved_later:
        base.to(torch.device("cuda"))  # type: ignore[arg-type]  # transformers wraps it untyped
    apply_liger(base, cfg.kernels, ctx)
    check_new_tokens(new_tokens(cfg.model, ctx), base, cfg.adapter)
    fit_to_tokenizer(base, tokenizer, cfg.model, seed=cfg.optim.seed)
    spares_encoders = cfg.trained.freezes_encoders
    model = add_adapter(
        base, cfg.adapter, ctx, base=cfg.model, head=head, checkpoint=checkpoint, spares_encoders=spares_encoders
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
        ctx.warn(f"tiled_mlp: a {config.model_type} model has no MLP that stands by itself; it is computed whole")
    _, num_trainable = count_parameters(model)
    preflight.check_disk(num_trainable, ctx)
    return base, model


def can_be_asked(base: PreTrainedModel, cfg: TrainConfig, ctx: Context) -> bool:
    """Whether it can compute before it is in shards: kernels for GPUs do not, where it waits in main memory."""
    return base.device.type == ctx.device.kind or not has_fused_layers(base, cfg.kernels, ctx)
