"""The frozen model that preferences are measured against: the model in training, as it was before."""

from functools import partial

from torch import nn

from ftl.config.adapter import CHANGES_BASE, LoraSection
from ftl.config.train import TrainConfig
from ftl_runtime.checkpoint.store import Checkpoint
from ftl_runtime.context import Context
from ftl_runtime.data.training import TrainingData
from ftl_runtime.models.adapter import add_adapter
from ftl_runtime.models.built import Built
from ftl_runtime.models.load import load_model
from ftl_runtime.models.plan import ModelPlan
from ftl_runtime.models.quantize import quantisation
from ftl_runtime.models.tokenizer import fit_to_tokenizer
from ftl_runtime.train.precompute import with_reference
from ftl_runtime.train.scoring import Reference


def settle_reference(
    cfg: TrainConfig, plan: ModelPlan, built: Built, data: TrainingData, resume: Checkpoint | None, ctx: Context
) -> tuple[TrainingData, Reference | None]:
    """The data, and the reference that is asked in training: None where the objective needs none, or where the data
    tells what it says, because it was asked before."""
    if not cfg.objective.is_compared:
        return data, None
    find = partial(_find_reference, cfg, plan, built.model, ctx)
    if not cfg.objective.precompute_reference:
        return data, find()
    is_untrained = resume is None and cfg.adapter is None
    known = partial(Reference, built.model, has_adapter=False) if is_untrained else find
    batch_size = cfg.optim.eval_batch_size_or_default
    with_answers = with_reference(
        data, known, built.collate, built.inputs, batch_size=batch_size, dtype=plan.dtype, ctx=ctx
    )
    return with_answers, None


def _find_reference(cfg: TrainConfig, plan: ModelPlan, model: nn.Module, ctx: Context) -> Reference:
    """`model` without its adapter, where that is what it was before training; else a second copy.

    The copy is never trained, so it is in the type that is computed in.
    """
    adapter = cfg.adapter
    has_start = adapter is not None and adapter.initial is not None and cfg.objective.adapter_in_reference
    if adapter is not None and not has_start and not _changes_base(adapter):
        return Reference(model, has_adapter=True)
    has_adapter = adapter is not None
    base = load_model(
        cfg.model,
        plan.config,
        ctx,
        dtype=plan.dtype,
        attention=plan.attention.implementation,
        seed=cfg.optim.seed,
        quantisation=quantisation(plan.config, cfg.quant, plan.dtype, has_adapter=has_adapter),
    )
    fit_to_tokenizer(base, plan.tokenizer, cfg.model, seed=cfg.optim.seed)
    copy: nn.Module = add_adapter(base, adapter, ctx, base=cfg.model) if has_start else base
    copy.requires_grad_(False).eval()
    if next(copy.parameters()).device.type != ctx.device.kind:
        copy.to(ctx.device.kind)
    return Reference(copy, has_adapter=False)


def _changes_base(adapter: LoraSection) -> bool:
    """Without such an adapter the base is less than it was. (ReLoRA, which merges into it, is refused here.)"""
    return str(adapter.init_weights).startswith(CHANGES_BASE)
