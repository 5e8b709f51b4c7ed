"""The layers of a model on faster kernels: Liger's, on a GPU."""

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from transformers import PreTrainedModel

from ftl.config.kernels import KernelsSection
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


def has_fused_layers(model: PreTrainedModel, kernels: KernelsSection, ctx: Context) -> bool:
    """Whether norms and gated layers of `model` are Liger's, which keep less for the backward pass."""
    return _why_not(model, ctx) is None and kernels.rms_norm is not False and kernels.glu is not False


def _why_not(model: PreTrainedModel, ctx: Context) -> str | None:
    if ctx.device.kind != "cuda":
        return "Liger's kernels run on GPUs only"
    if find_spec("liger_kernel") is None:
        return "the liger-kernel package is not installed here"
    from liger_kernel.transformers import monkey_patch  # type: ignore[import-not-found, unused-ignore]

    kind = model.config.model_type
    return None if kind in monkey_patch.MODEL_TYPE_TO_APPLY_LIGER_FN else f"Liger has none for a {kind} model"


def _switches(wanted: Mapping[str, bool | None]) -> dict[str, Any]:  # Any: keyword arguments of Liger's
    """By Liger's names; a switch it does not know for an architecture it leaves out itself."""
    chosen = {name: choice is not False for name, choice in wanted.items()}
    glu = chosen.pop("glu")
    return {**chosen, "swiglu": glu, "geglu": glu}
