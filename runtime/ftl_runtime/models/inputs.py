"""How rows come to a model: what makes a batch of them, and what of a batch the model is given."""

import inspect

from transformers import PreTrainedModel

from ftl.config.train import TrainConfig
from ftl.tokens import TokenizerView
from ftl_runtime.context import Context
from ftl_runtime.data.collate import Collator
from ftl_runtime.data.layout import Collate, collator_of, lies_end_to_end
from ftl_runtime.data.pictured import PictureCollator
from ftl_runtime.kernels.head import splits_off_head
from ftl_runtime.models.fuse import has_fused_layers
from ftl_runtime.models.packing import mask_window, settle
from ftl_runtime.models.plan import ModelPlan
from ftl_runtime.models.processor import load_processor
from ftl_runtime.objectives import OBJECTIVES
from ftl_runtime.train.scoring import Inputs


def plan_inputs(
    cfg: TrainConfig, plan: ModelPlan, base: PreTrainedModel, view: TokenizerView, ctx: Context
) -> tuple[Inputs, Collate]:
    """What `base` is given of a batch, and what makes a batch of rows.

    What the plan leaves open is found by having it compute a few tokens. Raises ConfigError where it does not keep the
    documents of a row apart.
    """
    layout, documents = OBJECTIVES[cfg.objective.kind].layout, plan.attention.documents
    if cfg.data.is_packed and documents != "borders":
        documents = settle(base, plan.config, documents)
    inputs = Inputs(
        accepted=frozenset(inspect.signature(base.forward).parameters),
        splits_head=layout == "texts" and _can_be_asked(base, cfg, ctx) and splits_off_head(base),
        scales_by_probability=cfg.objective.scales_by_probability,
    )
    texts = Collator(
        plan.tokenizer.pad_token_id,
        cfg.data.sequence_len,
        cfg.data.pad_to_sequence_len,
        documents,
        dtype=plan.dtype,
        window=mask_window(plan.config),
        is_flat=lies_end_to_end(cfg.data, documents),
    )
    if cfg.data.processor is None:
        return inputs, collator_of(layout, texts)
    processor = load_processor(cfg.data.processor, cfg.model, plan.config, plan.tokenizer, ctx)
    return inputs, PictureCollator(processor, view, cfg.data, texts.pad_id)


def _can_be_asked(base: PreTrainedModel, cfg: TrainConfig, ctx: Context) -> bool:
    """Whether it can compute before it is in shards: kernels for GPUs do not, where it waits in main memory."""
    return base.device.type == ctx.device.kind or not has_fused_layers(base, cfg.kernels, ctx)
