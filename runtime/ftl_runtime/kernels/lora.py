"""A frozen linear layer with its LoRA update in one: two small products more, and nothing elementwise but dropout.

Shapes: N tokens, I inputs, O outputs, R the rank.
"""

from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.lora import layer as peft_lora
from torch import Tensor, nn
from torch.nn.functional import linear

_ADAPTER = "default"


def fuse(model: nn.Module) -> int:
    """Have every plain LoRA layer of `model` computed by `lora_linear`; gives how many there are.

    Left to peft: quantised bases, DoRA and other variants, adapters with a bias, and whatever is called with its
    adapter off.
    """
    layers = [layer for layer in model.modules() if _is_plain(layer)]
    for layer in layers:
        layer.forward = _forward_of(layer)
    return len(layers)


def lora_linear(
    x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, a_RI: Tensor, b_OR: Tensor, *, scaling: float, dropout: float
) -> Tensor:
    """x W^T + bias + scaling * dropout(x) A^T B^T, with gradients for x, A and B.

    Computed in the format of autocast where it is on, else in that of `x`; the gradients of A and B in theirs.
    """
    y: Tensor = _LoraLinear.apply(  # type: ignore[no-untyped-call]
        x, weight_OI, bias_O, a_RI, b_OR, scaling, dropout
    )
    return y


def _is_plain(layer: nn.Module) -> bool:
    return (
        type(layer) is peft_lora.Linear
        and type(layer.base_layer) is nn.Linear
        and list(layer.lora_A) == [_ADAPTER]
        and not layer.lora_variant
        and layer.lora_B[_ADAPTER].bias is None
        and not layer.base_layer.weight.requires_grad
    )


def _forward_of(layer: Any) -> Callable[..., Tensor]:  # Any: peft's layer, whose parts have no types
    peft_forward = layer.forward

    def forward(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # Any: as peft's
        if layer.disable_adapters or layer.merged or args or kwargs:
            y: Tensor = peft_forward(x, *args, **kwargs)
            return y
        dropout = layer.lora_dropout[_ADAPTER]
        return lora_linear(
            x,
            layer.base_layer.weight,
            layer.base_layer.bias,
            layer.lora_A[_ADAPTER].weight,
            layer.lora_B[_ADAPTER].weight,
            scaling=layer.scaling[_ADAPTER],
            dropout=dropout.p if isinstance(dropout, nn.Dropout) and layer.training else 0.0,
        )

    return forward


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # Any: torch's own protocol
        x: Tensor,
        weight_OI: Tensor,
        bias_O: Tensor | None,
        a_RI: Tensor,
        b_OR: Tensor,
        scaling: float,
        dropout: float,
    ) -> Tensor:
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        x_NI = x.reshape(-1, x.shape[-1]).to(dtype)
        kept_NI = torch.empty_like(x_NI, dtype=torch.bool).bernoulli_(1 - dropout) if dropout else None
        low_NR = linear(_dropped(x_NI, kept_NI, dropout), a_RI.to(dtype))
        y_NO = linear(x_NI, weight_OI.to(dtype), None if bias_O is None else bias_O.to(dtype))
        y_NO.addmm_(low_NR, b_OR.t().to(dtype), alpha=scaling)
        ctx.save_for_backward(x_NI, kept_NI, low_NR, weight_OI, a_RI, b_OR)
        ctx.scaling, ctx.dropout, ctx.given = scaling, dropout, (x.shape, x.dtype)
        return y_NO.view(*x.shape[:-1], y_NO.shape[-1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # Any: torch's own protocol
        x_NI, kept_NI, low_NR, weight_OI, a_RI, b_OR = ctx.saved_tensors
        grad_NO = grads[0].reshape(-1, grads[0].shape[-1]).to(x_NI.dtype)
        grad_low_NR = (grad_NO @ b_OR.to(x_NI.dtype)).mul_(ctx.scaling)
        grad_b_OR = (grad_NO.t() @ low_NR).to(b_OR.dtype).mul_(ctx.scaling)
        grad_a_RI = (grad_low_NR.t() @ _dropped(x_NI, kept_NI, ctx.dropout)).to(a_RI.dtype)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x_NI = grad_NO @ weight_OI.to(x_NI.dtype)
            if kept_NI is None:
                grad_x_NI.addmm_(grad_low_NR, a_RI.to(x_NI.dtype))
            else:
                grad_x_NI += _dropped(grad_low_NR @ a_RI.to(x_NI.dtype), kept_NI, ctx.dropout)
            shape, dtype = ctx.given
            grad_x = grad_x_NI.view(shape).to(dtype)
        return grad_x, None, None, grad_a_RI, grad_b_OR, None, None


def _dropped(x_NI: Tensor, kept_NI: Tensor | None, dropout: float) -> Tensor:
    return x_NI if kept_NI is None else (x_NI * kept_NI).div_(1 - dropout)
