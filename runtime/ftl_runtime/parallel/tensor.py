"""Tensor parallelism: the ranks of a group hold the large matrices of each layer between them, and read the same rows.

How a layer is cut is transformers' own plan for the model; what is around it is ours: it is applied to the finished
model, so that weights may come from anywhere, and gradients are summed once a step, over the ranks that hold the same
part. Embeddings, head and norms stay whole in each rank.
"""

import re
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.optim import Optimizer
from transformers import PreTrainedModel
from transformers.distributed.tensor_parallel import ALL_PARALLEL_STYLES  # type: ignore[attr-defined]  # as peft does

from ftl.errors import ConfigError
from ftl_runtime.context import Device

_CUT = ("colwise", "rowwise")
_PARTIAL = "replicated_with_grad_allreduce"
"""Norms of single heads: each rank has whole weights, and the gradient of its own heads. Transformers sums it after
each backward pass, which with several micro-batches a step counts the first twice; here it is summed once a step."""
_KEY = "tensor_parallel_size"


@dataclass(frozen=True)
class Cut:
    """A model that is cut, and what its gradients need."""

    partial: frozenset[str]
    """Names of the whole parameters of which each rank of a group has a part of the gradient."""
    copies: dist.ProcessGroup
    """The ranks that hold the same part as this one."""
    device: Device

    @torch.no_grad()
    def average_gradients(self, model: nn.Module) -> None:
        """Make of each gradient the mean over copies of the model; the ranks of a group then agree to the last bit."""
        for name, parameter in model.named_parameters():
            if parameter.grad is None:
                continue
            grad = parameter.grad
            if isinstance(grad, DTensor):
                layout = _layout(parameter)
                if grad.placements != layout:
                    grad = parameter.grad = grad.redistribute(placements=layout)
            here = _here(grad)
            if _is_cut(grad):
                if self.device.num_copies > 1:
                    dist.all_reduce(here, group=self.copies)
                here.div_(self.device.num_copies)
            else:
                dist.all_reduce(here)
                here.div_(self.device.num_copies if name in self.partial else self.device.num_ranks)


def cut(model: nn.Module, dtype: torch.dtype, device: Device) -> Cut:
    """Cut the layers of `model` up in place, `device.ranks_per_copy` parts each; what is whole goes to the device.

    Raises ConfigError for a model that transformers has no plan for, or one that has not been tried.
    """
    assert isinstance(model, PreTrainedModel), "the rules refuse adapters"
    if dtype == torch.float16:
        raise ConfigError(f"{_KEY}: is not trained in fp16, which this GPU needs: remove it, or use fp32")
    plan = _plan(model, device.ranks_per_copy)
    mesh = init_device_mesh(device.kind, (device.num_copies, device.ranks_per_copy), mesh_dim_names=("copy", "part"))
    partial = set()
    for name, module in model.named_modules():
        style = plan.get(_pattern(name))
        if style in _CUT:
            for parameter in ("weight", "bias"):
                ALL_PARALLEL_STYLES[style].shard_param(module, parameter, mesh["part"])
            ALL_PARALLEL_STYLES[style].install_forward(module, mesh["part"])
        elif style == _PARTIAL:
            partial |= {f"{name}.{own}" for own, _ in module.named_parameters(recurse=False)}
    model.to(torch.device(device.kind))  # type: ignore[arg-type]  # transformers wraps it untyped
    return Cut(frozenset(partial), mesh.get_group("copy"), device)


def step_one_by_one(optimizer: Optimizer) -> None:
    """Have one of torch's optimizers take one parameter after the other: cut ones and whole ones do not go together."""
    for group in optimizer.param_groups:
        group.update({key: False for key in ("foreach", "fused") if key in group})


def num_cut(model: nn.Module) -> int:
    """Weights of which each rank holds a part."""
    return sum(_is_cut(parameter) for parameter in model.parameters())


def _plan(model: PreTrainedModel, num_parts: int) -> dict[str, str]:
    """Pattern of a module in a layer -> how it is cut."""
    kind = model.config.model_type
    plan = {pattern: style for pattern, style in (model.tp_plan or {}).items() if "*" in pattern}
    if not plan:
        raise ConfigError(
            f"{_KEY}: transformers has no plan for cutting a {kind} model; remove it, and use fsdp_config for a model "
            "that is too large for one GPU"
        )
    if untried := sorted({*plan.values()} - {*_CUT, _PARTIAL}):
        raise ConfigError(
            f"{_KEY}: a {kind} model is cut in ways that have not been tried ({', '.join(untried)}); remove it, and "
            "use fsdp_config for a model that is too large for one GPU"
        )
    text = model.config.get_text_config()
    for name in ("num_attention_heads", "num_key_value_heads"):
        heads = getattr(text, name, None) or num_parts
        if heads % num_parts:
            raise ConfigError(f"{_KEY}: {num_parts}: must divide the {heads} {name} of this model")
    return plan


def _pattern(name: str) -> str:
    """model.layers.3.mlp -> model.layers.*.mlp"""
    return re.sub(r"\.\d+(?=\.|$)", ".*", name)


def _layout(parameter: nn.Parameter) -> Any:  # Any: torch's own, a tuple of placements
    whole: Any = parameter  # Any: a parameter that holds a DTensor is one, which its type does not say
    return whole.placements


def _is_cut(tensor: Tensor) -> bool:
    return isinstance(tensor, DTensor) and any(isinstance(placement, Shard) for placement in tensor.placements)


def _here(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
