"""Weights in 4 or 8 bits, by bitsandbytes: how they are asked for, and what must be known of them afterwards.

bitsandbytes is imported only where a model holds such weights.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, GPTQConfig, PreTrainedConfig

from ftl.config.quantize import QuantSection
from ftl.errors import ConfigError
from ftl_runtime.context import Device

_INSTALL = "pip install 'ftl-launcher[quant]', or take an image that has it"

_READ_PAST_LAYERS = ("mamba", "falcon_mamba", "rwkv")


def missing_package(quant: QuantSection) -> str | None:
    """Why this machine cannot quantise what the config asks for; None where it can."""
    missing = [name for name in ("gptqmodel", "optimum") if quant.is_gptq and find_spec(name) is None]
    if missing:
        return f"gptq: needs the {missing[0]!r} package: pip install {missing[0]}, or take the unquantised base"
    if quant.num_bits is None or find_spec("bitsandbytes") is not None:
        return None
    return f"load_in_{quant.num_bits}bit: needs the 'bitsandbytes' package: {_INSTALL}"


def quantisation(
    config: PreTrainedConfig, quant: QuantSection, compute: torch.dtype, *, has_adapter: bool
) -> BitsAndBytesConfig | GPTQConfig | None:
    """What transformers is to load the model with; None for weights as they are.

    Raises ConfigError for a base that brings quantised weights of a kind that nothing can be trained on.
    """
    own = _own(config)
    if own is not None:
        return _loading(own, quant, has_adapter=has_adapter)
    if quant.is_gptq:
        raise ConfigError("gptq: true: the weights of base_model are not quantised; remove it, or use load_in_4bit")
    return quantise(quant, compute)


def quantise(quant: QuantSection, compute: torch.dtype) -> BitsAndBytesConfig | None:
    """How bitsandbytes is to quantise the base while it is loaded; None where it is not to."""
    if quant.num_bits is None:
        return None
    options = quant.options.model_dump(exclude={"llm_int8_enable_fp32_cpu_offload", "llm_int8_skip_modules"})
    if options["bnb_4bit_compute_dtype"] is None:
        options["bnb_4bit_compute_dtype"] = compute
    skipped = quant.options.llm_int8_skip_modules
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=quant.in_4bit,
        load_in_8bit=quant.in_8bit,
        llm_int8_skip_modules=None if skipped is None else list(skipped),
        **options,
    )


def check_quantisable(config: PreTrainedConfig) -> None:
    """Raises ConfigError for a model whose forward pass cannot do with weights in 4 or 8 bits."""
    if config.model_type in _READ_PAST_LAYERS:
        raise ConfigError(
            f"base_model: a {config.model_type} model reads weights without the layers that hold them, so bitsandbytes "
            "cannot turn them back; train it unquantised, with `adapter: lora` for instance"
        )


def keep_layout(model: nn.Module) -> None:
    """Have 4-bit weights stay as they were quantised, whatever the model is used for.

    On CPUs with AVX512-BF16, bitsandbytes 0.50 lays them out anew at the first forward pass in eval mode: for good,
    with their scales rounded to bf16, and for a kernel that has no gradient. Training after an evaluation then has
    other weights and wrong gradients. Linear4bit.support_avx512bf16_for_cpu decides that, a layer at a time; without
    it, evaluation uses the kernels of training. To be removed once bitsandbytes keeps both layouts.
    """
    for part in model.modules():
        if hasattr(part, "support_avx512bf16_for_cpu"):
            part.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def holds_few_bits(layer: nn.Module) -> bool:
    """Whether bitsandbytes holds the weight of this layer, in 4 or 8 bits."""
    weight = getattr(layer, "weight", None)
    return getattr(weight, "quant_state", None) is not None or getattr(weight, "dtype", None) == torch.int8


@contextmanager
def quantising_on(kind: str) -> Iterator[None]:
    """Inside, 4-bit weights that are loaded into main memory pass through the device of `kind`, one at a time, where
    they are quantised.

    So shards can be cut of a base that no GPU holds whole; a CPU takes seconds for what a GPU does in milliseconds.
    """
    import bitsandbytes.nn as bnb_nn

    params: Any = bnb_nn.Params4bit  # type: ignore[attr-defined]  # Any: bitsandbytes has no types
    quantise_on = params._quantize

    def through(weight: Any, device: Any) -> Any:  # Any: as above
        held = quantise_on(weight, kind)
        held.data = held.data.to(device)
        held.quant_state.to(device)
        return held

    params._quantize = through
    try:
        yield
    finally:
        params._quantize = quantise_on


def dense(layer: nn.Module) -> Tensor:
    """The weight of a linear layer in fp32, whatever it is held in."""
    held: Any = layer  # Any: one of bitsandbytes' layers, or a plain one; each has other attributes
    weight = held.weight
    whole: Tensor
    if getattr(weight, "quant_state", None) is not None:
        from bitsandbytes.functional import dequantize_4bit

        whole = dequantize_4bit(weight.data, weight.quant_state).float()
    elif weight.dtype == torch.int8:
        # The layer takes the scales over from the weight when a first batch goes through it.
        scales = weight.SCB if held.state.SCB is None else held.state.SCB
        whole = weight.data.float() * (scales.float()[:, None] / 127)
    else:
        whole = weight.detach().float().clone()
    return whole


def put_dense(layer: nn.Module, value: Tensor) -> None:
    """Have a linear layer hold `value` in place of its weight, in the format it has."""
    held: Any = layer  # Any: one of bitsandbytes' layers, or a plain one; each has other attributes
    weight = held.weight
    if getattr(weight, "quant_state", None) is not None:
        fresh = type(weight)(
            value.cpu(),
            requires_grad=False,
            quant_type=weight.quant_type,
            blocksize=weight.blocksize,
            compress_statistics=weight.compress_statistics,
            quant_storage=weight.quant_storage,
            module=held,
        )
        held.weight = fresh.to(weight.device)
        held.weight.quant_state.dtype = weight.quant_state.dtype
    elif weight.dtype == torch.int8:
        held.weight = type(weight)(value.half().cpu(), requires_grad=False, has_fp16_weights=False).to(weight.device)
        held.state.reset_grads()
    else:
        weight.data.copy_(value)


def lay_open(model: nn.Module, device: Device) -> None:
    """Have 4-bit weights be plain tensors of their bytes, which can be cut up and put together again.

    Their layers keep shapes and scales, on the device of this rank. bitsandbytes looks for them there.
    """
    for part in model.modules():
        held: Any = part  # Any: one of bitsandbytes' layers
        state = _state_of(part)
        if state is not None:
            held.quant_state = state
            state.to(torch.device(device.kind))
            held.weight = nn.Parameter(held.weight.data, requires_grad=False)


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Weights of the model, and those of them that are trained; several in one byte count each."""
    states = {id(part.weight): state for part in model.modules() if (state := _state_of(part)) is not None}
    total = trained = 0
    for parameter in model.parameters():
        state = states.get(id(parameter))
        count = math.prod(state.shape) if state is not None else getattr(parameter, "ds_numel", parameter.numel())
        total += count
        trained += count if parameter.requires_grad else 0
    return total, trained


def describe(config: PreTrainedConfig) -> str | None:
    """How the weights of the model are held, for the result; None where they are not quantised."""
    own = _own(config)
    if own is None:
        return None
    if own.get("quant_method") == "gptq":
        return f"{own.get('bits')} bits (gptq)"
    if not own.get("load_in_4bit"):
        return "8 bits"
    scales = ", scales in 8 bits" if own.get("bnb_4bit_use_double_quant") else ""
    return f"4 bits ({own.get('bnb_4bit_quant_type')}{scales})"


def _loading(own: dict[str, Any], quant: QuantSection, *, has_adapter: bool) -> GPTQConfig | None:  # Any: JSON
    """How weights that are quantised already are loaded; None for bitsandbytes, which needs no telling."""
    method = own.get("quant_method", "bitsandbytes")
    if not has_adapter:
        raise ConfigError(
            "base_model: its weights are quantised already, so they cannot be trained themselves; add `adapter: lora`, "
            "or take the unquantised base"
        )
    if method == "bitsandbytes" and not quant.is_gptq:
        return None
    if method == "gptq" and quant.num_bits is None:
        if missing := missing_package(QuantSection(is_gptq=True)):
            raise ConfigError(missing)
        return GPTQConfig(bits=own["bits"], backend="auto_trainable")
    raise ConfigError(
        f"base_model: its weights are quantised already, by {method}; bitsandbytes and gptq can be trained on, without "
        "quantising them again. Take the unquantised base, and load_in_4bit to quantise it while it is loaded"
    )


def _own(config: PreTrainedConfig) -> dict[str, Any] | None:  # Any: JSON
    found = getattr(config, "quantization_config", None)
    return found if found is None or isinstance(found, dict) else dict(found.to_dict())


def _state_of(layer: nn.Module) -> Any:  # Any: bitsandbytes' shapes and scales
    """None for a layer whose weight is not in 4 bits."""
    weight = layer._parameters.get("weight")
    if weight is None:
        return None
    return getattr(weight, "quant_state", None) or getattr(layer, "quant_state", None)
