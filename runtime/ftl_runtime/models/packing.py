"""Which models keep the documents of a packed row apart, and by what."""

import inspect
from typing import Any

import torch
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig

from ftl.errors import ConfigError
from ftl_runtime.data.collate import Documents, document_mask

# Measured by tests/runtime/models/test_support.py, which also holds the table of docs/models.md to it: what keeps the
# documents of a row apart, so that its logits are those of each document alone.
_POSITIONS_SUFFICE = frozenset(
    (
        *("apertus", "arcee", "bitnet", "codegen", "cohere", "cohere2", "deepseek_v2", "deepseek_v3", "dots1"),
        *("ernie4_5", "ernie4_5_moe", "exaone4", "flex_olmo", "gemma", "gemma2", "gemma3_text", "gemma4_text", "glm"),
        *("glm4", "glm4_moe", "gpt2", "gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "granite", "granitemoe"),
        *("helium", "hunyuan_v1_dense", "llama", "llama4_text", "minimax_m2", "ministral", "ministral3", "mistral"),
        *("mixtral", "nanochat", "nemotron", "olmo", "olmo2", "olmo3", "olmoe", "persimmon", "phi", "phi3", "phimoe"),
        *("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "seed_oss", "smollm3", "stablelm", "starcoder2"),
    )
)
"""Positions that start again at 0, and no mask."""
_MASK_SUFFICES = frozenset(["biogpt", "falcon", "gpt_oss", "mpt", "opt", "xglm"])
"""An explicit 4D mask: transformers makes none from the positions."""
_TAKES_MASK_OF_EACH_KIND = frozenset(["gpt_oss"])
"""Of those: one mask for full attention, another for sliding windows."""
_CANNOT_PACK = frozenset(["bloom"])
"""It takes no 4D mask."""


def keeps_apart(config: PreTrainedConfig) -> Documents | None:
    """What a model must be given so that documents of a row do not see each other; None where nothing does it.

    For a model that was not measured a mask is a guess, which `settle` tells right or wrong.
    """
    kind = config.model_type
    if kind in _POSITIONS_SUFFICE:
        return "positions"
    if kind in _MASK_SUFFICES:
        return "mask"
    return None if kind in _CANNOT_PACK or carries_state(config) else "mask"


def mask_window(config: PreTrainedConfig) -> int | None:
    """The window of a model that takes one mask for each kind of layer; None where one mask serves all."""
    return config.sliding_window if config.model_type in _TAKES_MASK_OF_EACH_KIND else None


def carries_state(config: PreTrainedConfig) -> bool:
    """Whether a layer passes a state along the row, which no mask stops: Mamba, linear attention, convolutions."""
    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    return getattr(kind, "_is_stateful", False) or any(
        layer == "linear_attention" or not layer.endswith("attention") for layer in _layer_types(config)
    )


def settle(model: nn.Module, config: PreTrainedConfig, guess: Documents) -> Documents:
    """What keeps documents apart: the guess for models that were measured, else what does so in two short rows.

    Raises ConfigError where nothing does.
    """
    if config.model_type in _POSITIONS_SUFFICE | _MASK_SUFFICES:
        return guess
    kinds: tuple[Documents, ...] = ("positions",) if _has_windows(config) else ("positions", "mask")
    for kind in kinds:
        if _is_deaf_to_neighbours(model, kind, config.get_text_config().vocab_size):
            return kind
    raise ConfigError(
        f"sample_packing: in this {config.model_type} model one document of a row changes what is computed for the "
        "next; set sample_packing: false"
    )


def _layer_types(config: PreTrainedConfig) -> list[str]:
    return getattr(config.get_text_config(), "layer_types", None) or []


def _has_windows(config: PreTrainedConfig) -> bool:
    """Whether a token of some layer sees only those near it; a mask for all layers would open the windows."""
    text = config.get_text_config()
    window = getattr(text, "sliding_window", None) and getattr(text, "use_sliding_window", True)
    return bool(window) or any(layer.startswith(("sliding", "chunked")) for layer in _layer_types(config))


@torch.no_grad()
def _is_deaf_to_neighbours(model: Any, kind: Documents, num_ids: int) -> bool:  # Any: PreTrainedModel lacks its types
    """Whether the second document of a row has the same logits whatever the first one says.

    In training mode, with the same random numbers in both rows: quantised weights need not survive an evaluation.
    """
    length = 12
    generator = torch.Generator().manual_seed(0)
    first, other, second = (torch.randint(0, num_ids, (1, length), generator=generator) for _ in range(3))
    position_ids = torch.arange(length).repeat(2)[None].to(model.device)
    given: dict[str, Any] = {"use_cache": False}  # Any: tensors and a switch
    if "position_ids" in inspect.signature(model.forward).parameters:
        given["position_ids"] = position_ids
    if kind == "mask":
        given["attention_mask"] = document_mask(position_ids, model.dtype)
    logits = []
    for beginning in (first, other):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            try:
                row = torch.cat([beginning, second], dim=1).to(model.device)
                logits.append(model(input_ids=row, **given).logits.float())
            except (TypeError, ValueError, RuntimeError):
                return False  # it takes no such input
    change = (logits[0] - logits[1]).abs()
    # Experts see other neighbours, so that their sums may differ in the last bits.
    return bool(change[:, length:].max() <= 0.01 * change[:, :length].max())
