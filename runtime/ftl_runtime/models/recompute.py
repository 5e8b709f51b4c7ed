"""Activations recomputed in the backward pass, or moved to main memory until then: as the config says, else as few as
the GPU has no room for. The numbers are the same, bit for bit, dropout included."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from transformers.modeling_layers import GradientCheckpointingLayer

from ftl.config.train import TrainConfig
from ftl.errors import ConfigError
from ftl_runtime import ranks
from ftl_runtime.context import Context
from ftl_runtime.models.built import Built
from ftl_runtime.models.footprint import Footprint, LayerShape, estimate, fewest_recomputed
from ftl_runtime.models.fuse import has_fused_layers
from ftl_runtime.models.plan import ModelPlan
from ftl_runtime.objectives import OBJECTIVES

_GIB = 2**30


@dataclass(frozen=True)
class Recompute:
    num_layers: int | None
    """Of the first so many layers the activations are recomputed; None is of all of them."""
    offloads: bool = False
    """What these layers keep, their inputs, lies in main memory until the backward pass."""

    def __str__(self) -> str:
        which = "all layers" if self.num_layers is None else f"{self.num_layers} layers"
        return "none" if self.num_layers == 0 else which + (", their inputs in main memory" if self.offloads else "")


NOTHING = Recompute(0)


def asked_for(cfg: TrainConfig) -> Recompute | None:
    """What the config says; None where it leaves the choice to the planner, which plans for a model that is whole and
    reads texts alone."""
    precision, shards = cfg.precision, cfg.parallel.fsdp
    if precision.activation_offloading:
        return Recompute(None, offloads=True)
    if precision.gradient_checkpointing or (shards is not None and shards.activation_checkpointing):
        return Recompute(None)
    is_whole = shards is None and cfg.parallel.zero is None
    is_planned = precision.gradient_checkpointing is None and is_whole and cfg.data.processor is None
    return None if is_planned else NOTHING


def planned(footprint: Footprint, free_bytes: int) -> Recompute:
    """As little as lets the training fit into so much memory."""
    number = fewest_recomputed(footprint, free_bytes)
    return Recompute(None, offloads=True) if number is None else Recompute(number)


def settle_recompute(cfg: TrainConfig, plan: ModelPlan, built: Built, ctx: Context) -> Recompute:
    """Have the model, which lies on its device, recompute what the config says, else what the planner finds; tells
    which.

    All ranks must ask; they all do the same. Raises ConfigError where the model cannot recompute what is asked for.
    """
    chosen = asked_for(cfg)
    if chosen is None:
        can_plan = ctx.device.kind == "cuda" and _can_recompute(built.model)
        found = _footprint_of(cfg, plan, built, ctx) if can_plan else None
        chosen = NOTHING if found is None else _plan(found, cfg.model.gpu_memory_limit_gib, ctx)
    if chosen.offloads and ctx.device.kind == "cpu":
        ctx.warn(
            "activation_offloading: has no effect without a GPU: activations are in main memory already; remove it"
        )
        chosen = Recompute(chosen.num_layers)
    if chosen != NOTHING:
        recompute(built.model, chosen)
    return chosen


def recompute(model: Any, what: Recompute) -> None:  # Any: a model, or one in an adapter that hands the calls through
    """Raises ConfigError where the model cannot do it."""
    if not _can_recompute(model):
        raise ConfigError("gradient_checkpointing: this model cannot recompute its activations; remove the key")
    kwargs = {"use_reentrant": False}  # also below a frozen embedding
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=kwargs)
    else:  # its name before transformers 5.20
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kwargs)
    parts = [part for part in model.modules() if hasattr(part, "_gradient_checkpointing_func")]
    if what.offloads:
        for part in parts:
            part._gradient_checkpointing_func = _with_inputs_on_host(part._gradient_checkpointing_func)
    layers = [part for part in parts if isinstance(part, GradientCheckpointingLayer)]
    if what.num_layers is not None:
        for layer in layers[what.num_layers :]:
            layer.gradient_checkpointing = False


def _footprint_of(cfg: TrainConfig, plan: ModelPlan, built: Built, ctx: Context) -> Footprint | None:
    """Of a training of the model; None where the config does not tell the model's shape."""
    base, layout = built.base, OBJECTIVES[cfg.objective.kind].layout
    text = base.config.get_text_config()
    shape = LayerShape.of(base.config)
    if shape is None:
        return None
    weights = [part for part in built.model.parameters() if part.is_floating_point()]
    trained = [part for part in weights if part.requires_grad]
    makes_scores = text._attn_implementation == "eager"
    num_rows = cfg.optim.micro_batch_size * (2 if layout in ("pairs", "scored") else 1)
    return estimate(
        shape,
        num_tokens=num_rows * cfg.data.sequence_len,
        num_trained=sum(part.numel() for part in trained),
        trained_bytes=sum(part.nbytes for part in trained),
        optimizer=cfg.optim.optimizer,
        compute_bytes=plan.dtype.itemsize,
        cast_bytes=sum(part.numel() * plan.dtype.itemsize for part in weights if part.dtype != plan.dtype),
        num_scores=text.num_attention_heads * cfg.data.sequence_len if makes_scores else 0,
        makes_logits=not built.inputs.splits_head,
        has_kernels=has_fused_layers(base, cfg.kernels, ctx),
        num_ranks=ctx.device.num_ranks,
    )


def _plan(footprint: Footprint, limit_gib: float | None, ctx: Context) -> Recompute:
    free_bytes = min(ranks.gather(_free_bytes(limit_gib), ctx.device))
    chosen = planned(footprint, free_bytes)
    ctx.emit(
        "memory",
        {
            "recompute": str(chosen),
            "free_gib": round(free_bytes / _GIB, 2),
            "needed_gib": round(footprint.needed(0) / _GIB, 2),
        },
    )
    return chosen


def _free_bytes(limit_gib: float | None) -> int:
    """What this process may still take of its GPU."""
    allocated = torch.cuda.memory_allocated()
    free: int = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - allocated
    return free if limit_gib is None else min(free, int(limit_gib * _GIB) - allocated)


def _can_recompute(model: Any) -> bool:  # Any: as above
    return bool(getattr(model, "supports_gradient_checkpointing", False))


class _Moved(NamedTuple):
    on_host: Tensor
    device: torch.device


def _with_inputs_on_host(checkpoint: Callable[..., Any]) -> Callable[..., Any]:  # Any: whatever a layer takes
    def offloading(*args: Any, **kwargs: Any) -> Any:
        # Inside, `checkpoint` has hooks of its own, so only the layer's inputs come here.
        with saved_tensors_hooks(_to_host, _from_host):
            return checkpoint(*args, **kwargs)

    return offloading


def _to_host(tensor: Tensor) -> Tensor | _Moved:
    if not _is_moved(tensor):
        return tensor
    # The copies are ordered by the stream that computes, so neither side has to wait.
    on_host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return _Moved(on_host.copy_(tensor, non_blocking=True), tensor.device)


def _from_host(packed: Tensor | _Moved) -> Tensor:
    return packed if isinstance(packed, Tensor) else packed.on_host.to(packed.device, non_blocking=True)


def _is_moved(tensor: Tensor) -> bool:
    return tensor.is_cuda and tensor.is_floating_point()
