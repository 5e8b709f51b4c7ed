"""The frozen model that preferences are measured against: the model in training, as it was before."""

from torch import nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ftl.config.adapter import CHANGES_BASE, LoraSection
from ftl.config.model import Attention
from ftl.config.train import TrainConfig
from ftl_runtime.context import Context
from ftl_runtime.models.adapter import add_adapter
from ftl_runtime.models.load import load_model
from ftl_runtime.models.quantize import quantisation
from ftl_runtime.models.tokenizer import fit_to_tokenizer
from ftl_runtime.train.args import compute_dtype
from ftl_runtime.train.scoring import Reference


def find_reference(
    cfg: TrainConfig,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    attention: Attention,
    model: nn.Module,
    ctx: Context,
) -> Reference:
    """`model` without its adapter, where that is what it was before training; else a second copy.

    The copy is never trained, so it is in the type that is computed in.
    """
    adapter = cfg.adapter
    has_start = adapter is not None and adapter.initial is not None and cfg.objective.adapter_in_reference
    if adapter is not None and not has_start and not _changes_base(adapter):
        return Reference(model, has_adapter=True)
    compute = compute_dtype(cfg.precision, ctx.device)
    has_adapter = adapter is not None
    base = load_model(
        cfg.model,
        config,
        ctx,
        dtype=compute,
        attention=attention,
        seed=cfg.optim.seed,
        quantisation=quantisation(config, cfg.quant, compute, has_adapter=has_adapter),
    )
    fit_to_tokenizer(base, tokenizer, cfg.model, seed=cfg.optim.seed)
    copy: nn.Module = add_adapter(base, adapter, ctx, base=cfg.model) if has_start else base
    copy.requires_grad_(False).eval()
    if next(copy.parameters()).device.type != ctx.device.kind:
        copy.to(ctx.device.kind)
    return Reference(copy, has_adapter=False)


def _changes_base(adapter: LoraSection) -> bool:
    """Without such an adapter the base is less than it was. (ReLoRA, which merges into it, is refused here.)"""
    return str(adapter.init_weights).startswith(CHANGES_BASE)
