"""What the keys of the model must keep to."""

from ftl.config.rules.rule import Rule
from ftl.config.train import TrainConfig
from ftl.errors import Problem

_SAID_ELSEWHERE = {
    **dict.fromkeys(("dtype", "torch_dtype"), "precision"),
    "attn_implementation": "attn_implementation",
    "experts_implementation": "experts_implementation",
    **dict.fromkeys(("load_in_4bit", "load_in_8bit", "quantization_config"), "adapter: qlora, or load_in_8bit"),
    **dict.fromkeys(("device_map", "max_memory"), "gpu_memory_limit"),
    "revision": "model_revision",
    "trust_remote_code": "trust_remote_code",
    "config": "base_model_config",
}
"""Argument of from_pretrained -> the key that decides it."""
_DECIDED = ("use_safetensors", "output_loading_info", "state_dict", "from_tf", "from_flax")


def load_options_leave_to_other_keys_what_those_decide(config: TrainConfig) -> Problem | None:
    where = "overrides_of_model_kwargs"
    given = config.model.load_options
    for name in given:
        if name in _SAID_ELSEWHERE:
            remedy = f"remove it, and write {_SAID_ELSEWHERE[name]}"
            return Problem(f"{where}.{name}", allowed="is decided by a key of its own", remedy=remedy)
        if name in _DECIDED:
            return Problem(f"{where}.{name}", allowed="is decided by ftl", remedy="remove it")
    if given.get("use_cache"):
        return Problem(f"{where}.use_cache", "true", "must be false", "the cache serves generation alone; remove it")
    return None


def only_activations_that_are_recomputed_are_moved(config: TrainConfig) -> Problem | None:
    precision = config.precision
    if not precision.activation_offloading or precision.gradient_checkpointing is not False:
        return None
    return Problem(
        "activation_offloading",
        allowed="moves what `gradient_checkpointing` keeps, and that is false",
        remedy="remove one of them",
    )


def compile_mode_is_inductors(config: TrainConfig) -> Problem | None:
    kernels = config.kernels
    if kernels.compile_mode is None or kernels.compile_backend == "inductor":
        return None
    return Problem("torch_compile_mode", allowed="is inductor's own", remedy="remove it, or `torch_compile_backend`")


def compiled_layers_are_plain_ones(config: TrainConfig) -> Problem | None:
    if not config.kernels.is_compiled:
        return None
    tried = "has not been tried on"
    if config.parallel.fsdp is not None:
        return Problem("torch_compile", allowed=f"{tried} the sharded weights of `fsdp_config`", remedy="remove it")
    if config.quant.in_4bit or config.quant.in_8bit:
        told = f"{tried} the bases of `load_in_4bit` and `load_in_8bit`"
        return Problem("torch_compile", allowed=told, remedy="remove it")
    if config.rounding.qat is not None:
        return Problem("torch_compile", allowed=f"{tried} the rounded layers of `qat`", remedy="remove it")
    if config.kernels.tiled_mlp:
        return Problem("torch_compile", allowed=f"{tried} the layers of `tiled_mlp`", remedy="remove it")
    return None


MODEL_RULES: tuple[Rule, ...] = (
    compile_mode_is_inductors,
    compiled_layers_are_plain_ones,
    load_options_leave_to_other_keys_what_those_decide,
    only_activations_that_are_recomputed_are_moved,
)
