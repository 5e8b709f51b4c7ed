"""How attention is computed, and how packed documents are kept apart in it."""

from dataclasses import dataclass
from importlib.util import find_spec

import torch
from transformers import PreTrainedConfig, PreTrainedModel

from ftl.config.model import Attention
from ftl.errors import BackendError, ConfigError
from ftl_runtime.context import Device
from ftl_runtime.data.collate import Documents
from ftl_runtime.kernels import varlen
from ftl_runtime.models.packing import carries_state, keeps_apart

_TAKES_NO_MASK = ("flash_attention_2", "flash_attention_3", "flex_attention")
"""They take documents as positions or borders; a 4D mask would be ignored."""


@dataclass(frozen=True)
class AttentionPlan:
    implementation: Attention
    """What the model is loaded with."""
    documents: Documents
    """What a batch tells it, so that documents of a row do not see each other."""


def plan_attention(
    wanted: Attention | None,
    config: PreTrainedConfig,
    architecture: type[PreTrainedModel],
    *,
    is_packed: bool,
    device: Device,
    dtype: torch.dtype,
    gives_borders: bool = True,
) -> AttentionPlan:
    """The implementation asked for, else the fastest that keeps documents apart.

    `dtype` is what is computed in. `gives_borders` tells whether batches can come as one long row with the borders of
    its documents. FlashAttention 2 is torch's own where the flash-attn package is not installed; FlashAttention 3 and
    flex_attention are used where they are asked for only. Raises ConfigError where nothing would do, BackendError where
    a package is missing.
    """
    runs_varlen = device.kind == "cpu" or (device.has_flash and dtype != torch.float32)
    has_varlen = gives_borders and runs_varlen and varlen.fits(config, architecture)
    if wanted == "varlen" and not has_varlen:
        raise ConfigError(
            f"attn_implementation: varlen: cannot be used for a {config.model_type} model in {_name(dtype)} here; "
            "remove the key, and the fastest that fits is taken"
        )
    is_torch_flash = wanted == "flash_attention_2" and find_spec("flash_attn") is None
    if has_varlen and (wanted in (None, "varlen") or is_torch_flash):
        return AttentionPlan("varlen", "borders")
    if is_torch_flash:
        raise BackendError(
            f"attn_implementation: flash_attention_2: a {config.model_type} model needs the flash-attn package for it, "
            "which is not installed here; use sdpa, or build an image that has it"
        )
    documents = _documents(config, wanted, is_packed=is_packed)
    if wanted is None:
        return AttentionPlan(_fastest(architecture, device, documents), documents)
    if wanted == "flash_attention_3":
        _check_flash_3(config, architecture, dtype)
    if wanted == "flex_attention":
        _check_flex(config, architecture)
    has_borders = gives_borders and wanted in ("flash_attention_2", "flash_attention_3")
    return AttentionPlan(wanted, "borders" if has_borders else documents)


def _check_flash_3(config: PreTrainedConfig, architecture: type[PreTrainedModel], dtype: torch.dtype) -> None:
    where = "attn_implementation: flash_attention_3"
    if not getattr(architecture, "_supports_flash_attn", False):
        raise ConfigError(f"{where}: a {config.model_type} model cannot use it; remove the key")
    if dtype == torch.float32:
        raise ConfigError(f"{where}: computes in bf16 or fp16 only; set precision: bf16, or remove the key")
    if find_spec("flash_attn_interface") is None:
        raise BackendError(
            f"{where}: needs the flash-attn-3 package, which is not installed here; remove the key, or build an image "
            "that has it"
        )


def _check_flex(config: PreTrainedConfig, architecture: type[PreTrainedModel]) -> None:
    where = "attn_implementation: flex_attention"
    if not getattr(architecture, "_supports_flex_attn", False):
        raise ConfigError(f"{where}: a {config.model_type} model cannot use it; remove the key")
    if getattr(config, "attention_dropout", 0.0):
        raise ConfigError(f"{where}: knows no dropout, and this model has attention_dropout; use sdpa")


def _fastest(architecture: type[PreTrainedModel], device: Device, documents: Documents) -> Attention:
    # FlashAttention takes documents as positions only; a 4D mask would be ignored.
    has_flash = find_spec("flash_attn") is not None and getattr(architecture, "_supports_flash_attn", False)
    if device.has_flash and has_flash and documents == "positions":
        return "flash_attention_2"
    return "sdpa" if getattr(architecture, "_supports_sdpa", False) else "eager"


def _documents(config: PreTrainedConfig, attention: Attention | None, *, is_packed: bool) -> Documents:
    kept_by = keeps_apart(config)
    if not is_packed or kept_by == "positions":
        return "positions"
    if kept_by is None:
        why = ": its layers carry a state from one to the next" if carries_state(config) else ""
        raise ConfigError(
            f"sample_packing: documents cannot be kept apart in a {config.model_type} model{why}; "
            "set sample_packing: false"
        )
    if attention in _TAKES_NO_MASK:
        raise ConfigError(
            f"sample_packing: {attention} cannot keep documents apart in a {config.model_type} model; "
            "set attn_implementation: sdpa, or sample_packing: false"
        )
    return kept_by


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
