"""Decoder layers through torch's compiler, each by itself: they are alike, so one compilation serves all of them."""

import os
import shutil
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface
from transformers.modeling_layers import GradientCheckpointingLayer

from ftl.config.kernels import KernelsSection
from ftl.errors import ConfigError
from ftl_runtime.context import Context
from ftl_runtime.kernels import varlen
from ftl_runtime.models.recompute import NOTHING, Recompute

_MOST_VARIANTS = 64
"""Of one layer: in training and evaluation, with and without an adapter, whatever the rows' lengths are."""


def compiler_problem(kernels: KernelsSection) -> str | None:
    """Why this machine cannot compile, in a sentence; None where it can or is not asked to."""
    if not kernels.is_compiled or kernels.compile_backend != "inductor":
        return None
    name = os.environ.get("CXX", "g++")
    if shutil.which(name) is not None:
        return None
    return f"torch_compile: needs a C++ compiler, and there is no {name} here; install one, or remove the key"


def compile_layers(model: nn.Module, kernels: KernelsSection, recompute: Recompute, ctx: Context) -> None:
    """Have the layers compiled at their first step. What is compiled is kept in the cache for later attempts and runs.

    Lengths of rows and numbers of documents are left open, and attention document by document stays as it is, so that
    nothing is compiled again because a batch is another. Raises ConfigError where no layers are found.
    """
    if not kernels.is_compiled:
        return
    layers = [part for part in model.modules() if isinstance(part, GradientCheckpointingLayer)]
    if not layers:
        raise ConfigError("torch_compile: no decoder layers are found in this model; remove the key")
    if recompute != NOTHING:
        ctx.warn(
            f"torch_compile: layers that recompute their activations ({recompute}) run as they are; "
            "gradient_checkpointing: false has all of them compiled, where the memory suffices"
        )
    # Not only where it is unset: inductor puts its own choice there when anything imports it.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(ctx.cache_dir / "compiled")
    import torch._inductor.config as inductor

    inductor_config: Any = inductor  # Any: a module that takes what it knows
    if hasattr(inductor_config, "deterministic"):  # choices by timing would change the order of sums from run to run
        inductor_config.deterministic = True
    limits: Any = torch._dynamo.config  # Any: as above
    limits.recompile_limit = max(limits.recompile_limit, _MOST_VARIANTS)
    uncompiled = torch.compiler.disable(varlen.varlen_attention)  # type: ignore[no-untyped-call]
    AttentionInterface.register(varlen.NAME, uncompiled)
    for layer in layers:
        layer.compile(backend=kernels.compile_backend, mode=kernels.compile_mode, dynamic=True)
