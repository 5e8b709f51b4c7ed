"""The layers of a model on faster kernels: Liger's on a GPU, and torch's compiler where it is asked for."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from ftl.config.kernels import KernelsSection
from ftl.errors import ConfigError
from ftl_runtime.context import Context


def apply_liger(model: PreTrainedModel, kernels: KernelsSection, ctx: Context) -> None:
    """Patch `model` with the kernels that are not switched off, where they run and the architecture has them.

    Says when one that is asked for cannot be had; the numbers are the same without it.
    """
    wanted = {"rope": kernels.rope, "rms_norm": kernels.rms_norm, "layer_norm": kernels.layer_norm, "glu": kernels.glu}
    asked_for = [f"liger_{name}" for name, choice in wanted.items() if choice]
    if (why := _why_not(model, ctx)) is not None:
        if asked_for:
            ctx.warn(f"{', '.join(asked_for)}: not used, because {why}; the model is computed plainly, only slower")
        return
    from liger_kernel.transformers import monkey_patch  # type: ignore[import-not-found, unused-ignore]

    losses = {"cross_entropy": False, "fused_linear_cross_entropy": False}  # ftl_runtime.kernels.head has its own
    monkey_patch._apply_liger_kernel_to_instance(model, **_switches(wanted), **losses)


def _why_not(model: PreTrainedModel, ctx: Context) -> str | None:
    if ctx.device.kind != "cuda":
        return "Liger's kernels run on GPUs only"
    if find_spec("liger_kernel") is None:
        return "the liger-kernel package is not installed here"
    from liger_kernel.transformers import monkey_patch  # type: ignore[import-not-found, unused-ignore]

    kind = model.config.model_type
    return None if kind in monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN else f"Liger has none for a {kind} model"


def compile_layers(model: nn.Module, kernels: KernelsSection, ctx: Context) -> None:
    """Compile each decoder layer by itself: they are alike, so one compilation serves all of them."""
    if not kernels.is_compiled:
        return
    cache = ctx.cache_dir / "compiled"
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "inductor"))
    os.environ.setdefault("TRITON_CACHE_DIR", str(cache / "triton"))
    import torch._inductor.config as inductor

    if hasattr(inductor, "deterministic"):  # choices by timing would change the order of sums from run to run
        inductor.deterministic = True
    layers = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    if not layers:
        raise ConfigError("torch_compile: no decoder layers are found in this model; remove the key")
    torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, 64)
    for layer in layers:
        layer.compile(backend=kernels.compile_backend, mode=kernels.compile_mode)


def _switches(wanted: Mapping[str, bool | None]) -> dict[str, Any]:  # Any: keyword arguments of Liger's
    """By Liger's names; a switch it does not know for an architecture it leaves out itself."""
    chosen = {name: choice is not False for name, choice in wanted.items()}
    glu = chosen.pop("glu")
    return {**chosen, "swiglu": glu, "geglu": glu}
