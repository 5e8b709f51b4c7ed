"""How attention is computed, and how packed documents are kept apart in it."""

from importlib.util import find_spec

from transformers import PreTrainedConfig, PreTrainedModel

from ftl.config.model import Attention
from ftl.errors import ConfigError
from ftl_runtime.models.packing import Documents, carries_state, keeps_apart


def pick_attention(
    wanted: Attention | None, architecture: type[PreTrainedModel], *, on_cuda: bool, documents: Documents
) -> Attention:
    """The implementation to load the model with: the one asked for, else the fastest that fits."""
    if wanted is not None:
        return wanted
    # FlashAttention takes documents as positions only; a 4D mask would be ignored.
    has_flash = find_spec("flash_attn") is not None and getattr(architecture, "_supports_flash_attn", False)
    if on_cuda and has_flash and documents == "positions":
        return "flash_attention_2"
    return "sdpa" if getattr(architecture, "_supports_sdpa", False) else "eager"


def documents_input(config: PreTrainedConfig, attention: Attention | None, *, is_packed: bool) -> Documents:
    """What the model must be given so that documents of a row do not see each other.

    Raises ConfigError where nothing would do.
    """
    kept_by = keeps_apart(config)
    if not is_packed or kept_by == "positions":
        return "positions"
    if kept_by is None:
        why = ": its layers carry a state from one to the next" if carries_state(config) else ""
        raise ConfigError(
            f"sample_packing: documents cannot be kept apart in a {config.model_type} model{why}; "
            "set sample_packing: false"
        )
    if attention == "flash_attention_2":
        raise ConfigError(
            f"sample_packing: flash_attention_2 cannot keep documents apart in a {config.model_type} model; "
            "set attn_implementation: sdpa, or sample_packing: false"
        )
    return kept_by
