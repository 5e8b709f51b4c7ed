"""Keys that ftl is to honour and does not yet. To honour one, give a field its mark and take the key out of here."""

from ftl.config.dialect import Aside
from ftl.config.tables.aside import unbuilt

_FORMAT = "a base is held in 16 or 32 bits, or in 4 or 8 by bitsandbytes or GPTQ"
_DRAWN = "training on completions that the model draws itself"

UNBUILT: dict[str, Aside] = {
    # What is minimised.
    **unbuilt(("ebft",), _DRAWN),
    **unbuilt(("diffusion",), "only next-token prediction so far"),
    **unbuilt(("use_eaft", "eaft_alpha", "eaft_k"), "every trained token weighs the same so far"),
    # Numbers.
    **unbuilt(("model_quantization_config", "model_quantization_config_kwargs"), _FORMAT),
    **unbuilt(("quantize_moe_experts",), "experts that are one stacked parameter stay in 16 bits"),
    **unbuilt(("nvfp4_merge_aware",), "only Blackwell GPUs multiply nvfp4, and ftl has not been tried there"),
    **unbuilt(("fp8_enable_fsdp_float8_all_gather",), "fp8 has not been tried on sharded weights"),
}
