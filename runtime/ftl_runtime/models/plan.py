"""What is settled of a model before it is built."""

from dataclasses import dataclass

import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from ftl.config.train import TrainConfig
from ftl_runtime.context import Context
from ftl_runtime.models.attention import AttentionPlan, plan_attention
from ftl_runtime.models.load import architecture, head_of, load_config
from ftl_runtime.models.tokenizer import load_tokenizer
from ftl_runtime.objectives import OBJECTIVES
from ftl_runtime.train.args import compute_dtype


@dataclass(frozen=True)
class ModelPlan:
    tokenizer: PreTrainedTokenizerBase
    config: PretrainedConfig
    dtype: torch.dtype
    """What products are computed in."""
    attention: AttentionPlan


def plan_model(cfg: TrainConfig, ctx: Context) -> ModelPlan:
    """Raises ConfigError for a tokenizer, a config or an attention that cannot be had, BackendError where a package is
    missing."""
    objective, head = OBJECTIVES[cfg.objective.kind], head_of(cfg)
    tokenizer = load_tokenizer(cfg.model, cfg.data, ctx)
    num_classes = cfg.objective.num_labels or objective.num_classes
    config = load_config(cfg.model, ctx, head=head, num_classes=num_classes)
    dtype = compute_dtype(cfg.precision, ctx.device)
    attention = plan_attention(
        cfg.model.attention,
        config,
        architecture(config, head),
        is_packed=cfg.data.is_packed,
        device=ctx.device,
        dtype=dtype,
        gives_borders=objective.layout == "texts",
    )
    return ModelPlan(tokenizer, config, dtype, attention)
