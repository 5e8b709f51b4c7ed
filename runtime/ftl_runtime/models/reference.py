"""The frozen model that preferences are measured against: the model in training, as it was before."""

from torch import nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from ftl.config.model import Attention
from ftl.config.train import TrainConfig
from ftl_runtime.context import Context
from ftl_runtime.models.load import load_model
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
) -> Reference | None:
    """None where the objective needs none; else `model` without its adapter, or a second copy of the base.

    The copy is never trained, so it is in the type that is computed in.
    """
    if not cfg.objective.is_compared:
        return None
    if cfg.adapter is not None:
        return Reference(model, has_adapter=True)
    dtype = compute_dtype(cfg.precision, ctx.device)
    copy = load_model(cfg.model, config, ctx, dtype=dtype, attention=attention, seed=cfg.optim.seed)
    fit_to_tokenizer(copy, tokenizer, cfg.model, seed=cfg.optim.seed)
    frozen: nn.Module = copy
    return Reference(frozen.requires_grad_(False).eval().to(ctx.device.kind), has_adapter=False)
