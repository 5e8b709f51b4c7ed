"""Values of today's keys that need a word: older names, other meanings, and what ftl cannot train yet."""

import re
from collections.abc import Mapping
from typing import Any, get_args

from ftl.config.dialect import Conversion, Convert, NotBuiltError, Values
from ftl.config.model import Attention
from ftl.config.tables import deepspeed, fsdp, grpo
from ftl.errors import ConfigError
from ftl.yamlfile import parse_value


def _one_of(choices: Mapping[Any, Any], key: str) -> Convert:  # Any: what YAML holds
    """Values in `choices` are replaced, or raised where they are errors; all others pass."""

    def convert(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
        chosen = choices.get(value, value) if isinstance(value, str | bool) else value
        if isinstance(chosen, ValueError):
            raise chosen.with_traceback(None)
        return {key: chosen}

    return convert


def _adapter(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    if value is False:
        return {}
    is_contradicted = given.get("load_in_4bit") is False or any(given.get(key) for key in ("load_in_8bit", "gptq"))
    if value == "qlora" and not is_contradicted:
        return {"adapter": value, "load_in_4bit": True}
    if value in ("dora", "llama-adapter", "ia3"):
        raise NotBuiltError("not built yet: adapters are plain LoRA so far")
    return {"adapter": value}


def _init_weights(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    if value in ("eva", "corda", "lora_ga"):
        raise NotBuiltError(f"not built yet: {value} starts from what the data does in the base; must be {_INIT_NAMES}")
    if not isinstance(value, bool) and not (isinstance(value, str) and _INIT.fullmatch(value)):
        raise ValueError(f"must be {_INIT_NAMES}")
    return {"peft_init_lora_weights": value}


_BLACKWELL = "not built yet: only Blackwell GPUs multiply {}, and ftl has not been tried there; use int8, int4 or fp8"


def _rounding(key: str) -> Convert:
    """Formats by their other names; those in 4 bits of floating point are for GPUs that ftl has not seen."""

    def convert(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
        if not isinstance(value, dict):
            return {key: value}
        formats = {name: value[name] for name in ("weight_dtype", "activation_dtype") if name in value}
        for name, format in formats.items():
            if format in ("nvfp4", "mxfp4"):
                raise NotBuiltError(f"{name}: {_BLACKWELL.format(format)}")
        plain = {name: "fp8" if str(format).startswith("float8") else format for name, format in formats.items()}
        return {key: value | plain}

    return convert


def _gib(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*Gi?B", value) if isinstance(value, str) else None
    return {"gpu_memory_limit": float(found[1]) if found else value}


def _recomputing(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    if value in ("offload", "offload_disk"):
        return {"gradient_checkpointing": True, "activation_offloading": True}
    return {"gradient_checkpointing": True if value == "unsloth" else value}


def _own_config(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    return {} if value == given.get("base_model") else {"base_model_config": value}


def _patterns(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    return {"base_model_ignore_patterns": [value] if isinstance(value, str) else value}


def _no_interval(strategy: str, key: str) -> Convert:
    """0 times an epoch is never."""

    def convert(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
        return {strategy: "no"} if value == 0 and not isinstance(value, bool) else {key: value}

    return convert


def _warmup(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    return {"warmup_ratio": value} if isinstance(value, float) and 0 < value < 1 else {"warmup_steps": value}


def _optimizer_options(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    if not isinstance(value, str):
        return {"optim_args": value}
    pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
    if not all(sign and name.strip() for name, sign, _ in pairs):
        raise ValueError("must be a mapping, or text as name=value,name=value")
    try:
        return {"optim_args": {name.strip(): parse_value(text.strip(), "optim_args") for name, _, text in pairs}}
    except ConfigError as e:
        raise ValueError("must be a mapping, or text as name=value,name=value") from e


def _tokens(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    return {"special_tokens": value} if isinstance(value, dict) else {"tokens": value}


def _listed(key: str) -> Convert:
    """One of several may be written without the list."""
    return lambda value, given: {key: [value] if isinstance(value, str) else value}


def _resume(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    if value is True or value == "auto":
        raise ValueError("must be a checkpoint directory; `ftl resume ID` goes on from a run's newest one")
    return {} if value is False else {"resume_from_checkpoint": value}


_INIT = re.compile(r"gaussian|orthogonal|pissa|pissa_niter_\d+|olora|mica|loftq")
_INIT_NAMES = "true, false, gaussian, orthogonal, pissa, pissa_niter_N, olora, mica or loftq"
OPTIMIZERS: dict[str, str | ValueError] = {
    "adamw_hf": "adamw_torch",
    "adamw_apex_fused": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw": "paged_adamw_32bit",
    "lion_pytorch": "lion_32bit",
    "rmsprop_bnb": "rmsprop_bnb_32bit",
    "ao_adamw_8bit": "adamw_torch_8bit",
    "ao_adamw_4bit": "adamw_torch_4bit",
    "galore_adamw_layerwise": "galore_adamw",
    "galore_adamw_8bit_layerwise": "galore_adamw_8bit",
    "galore_adafactor_layerwise": "galore_adafactor",
    "apollo_adamw_layerwise": "apollo_adamw",
    "adamw_anyprecision": ValueError("torchdistx is no longer developed; adamw_torch_fused is the default"),
    "adamw_torch_xla": ValueError("is for TPUs, on which ftl does not train; adamw_torch_fused is the default"),
    "adamw_torch_npu_fused": ValueError("is for Ascend NPUs, on which ftl does not train; use adamw_torch_fused"),
    "dion": ValueError("is in no package that can be installed; muon makes the same orthogonal steps"),
    "grokadamw": ValueError(
        "loses its states when a run is resumed; adamw_torch_fused with grokfast_alpha and grokfast_lamb filters"
        " gradients the same way"
    ),
    "q_galore_adamw8bit": ValueError("needs weights in 8 bits that nothing else can read; use galore_adamw_8bit"),
    "flash_adamw": ValueError("keeps weights in two pieces that no checkpoint here holds; use adamw_torch_8bit"),
    **dict.fromkeys(
        ("lomo", "adalomo"),
        ValueError(
            "moves weights during the backward pass, so it can neither accumulate nor clip gradients, and its states"
            " are in no checkpoint; use apollo_adamw or paged_adamw_8bit, which need little memory too"
        ),
    ),
}
SCHEDULES: dict[str, str | ValueError] = {
    "wsd": "warmup_stable_decay",
    "greedy": ValueError("keeps what it has seen in no checkpoint; reduce_lr_on_plateau follows the loss as well"),
}
ATTENTIONS: dict[str, str | ValueError] = {
    "xformers": "sdpa",
    "s2": ValueError(
        "shifted sparse attention is gone; overrides_of_model_config with rope_scaling yarn is today's way"
    ),
    **dict.fromkeys(
        ("flash_attention_4", "sage", "fp8"),
        NotBuiltError(f"not built yet: so far {', '.join(get_args(Attention))}"),
    ),
}
_YAML_NO = "YAML reads a bare no as false"


def _text_metrics(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    if isinstance(value, list) and "comet" in value:
        raise ValueError(
            "has comet, which ftl does not compute: it loads a model of 2 GB beside the trained one, by a package that "
            "wants other versions of torch; chrf is the nearest of sacrebleu's scores"
        )
    return {"eval_causal_lm_metrics": value}


VALUES: dict[str, Conversion] = {
    "eval_causal_lm_metrics": Conversion(
        _text_metrics, "eval_causal_lm_metrics: [chrf]", "the scores that sacrebleu computes"
    ),
    "base_model_config": Conversion(_own_config, "base_model", "a base brings its own config", is_noted=False),
    "base_model_ignore_patterns": Conversion(_patterns, "base_model_ignore_patterns: [...]", "a list of patterns"),
    "gpu_memory_limit": Conversion(_gib, "gpu_memory_limit: 20", "a number of GiB"),
    "experts_implementation": Conversion(
        _one_of(dict.fromkeys(("scattermoe", "sonicmoe", "deepgemm"), "grouped_mm"), "experts_implementation"),
        "experts_implementation: grouped_mm",
        "torch's own grouped product gives the same numbers",
        is_noted=True,
    ),
    "deepspeed": Conversion(
        deepspeed.from_settings,
        "deepspeed: deepspeed_configs/zero2.json",
        "settings of a DeepSpeed file; what a key of the config says is left to it",
    ),
    "fsdp_config": Conversion(
        fsdp.from_settings,
        "fsdp_config: {reshard_after_forward: true}",
        "the weights are sharded by torch's FSDP2, which decides the rest itself; each process reads the base",
        is_noted=True,
    ),
    "trl": Conversion(
        grpo.from_settings,
        "trl: {reward_funcs: [rewards.accuracy]}",
        "rewards and how completions are drawn",
        dropped=grpo.without_effect,
    ),
    "adapter": Conversion(_adapter, "adapter: lora", "adapters are plain LoRA so far"),
    "peft_init_lora_weights": Conversion(
        _init_weights, "peft_init_lora_weights: pissa", "ways to start that look at the weights alone"
    ),
    **{
        key: Conversion(_rounding(key), f"{key}: {{weight_dtype: fp8}}", "float8_e4m3fn is fp8 in short")
        for key in ("qat", "quantization")
    },
    "optimizer": Conversion(
        _one_of(OPTIMIZERS, "optimizer"),
        "optimizer: adamw_torch_fused",
        "the same steps, by the name they have today; none are taken layer by layer",
        is_noted=True,
    ),
    "lr_scheduler": Conversion(
        _one_of(SCHEDULES, "lr_scheduler"), "lr_scheduler: warmup_stable_decay", "the name in full"
    ),
    "optim_args": Conversion(_optimizer_options, "optim_args: {NAME: VALUE}", "options have names"),
    "attn_implementation": Conversion(
        _one_of(ATTENTIONS, "attn_implementation"),
        "attn_implementation: sdpa",
        "torch's own attention is as fast and as exact",
        is_noted=True,
    ),
    "objective": Conversion(
        _one_of(
            {
                **dict.fromkeys(
                    ("gdpo", "ebft", "rloo", "online_dpo"),
                    NotBuiltError("not built yet: training on completions that the model draws itself"),
                ),
                "ppo": ValueError("axolotl never trained it, and neither does ftl; dpo needs no reward model"),
            },
            "objective",
        ),
        "objective: dpo",
        "the objectives so far learn from given rows",
    ),
    "dpo_loss_type": Conversion(_listed("dpo_loss_type"), "dpo_loss_type: [sigmoid]", "several may be added up"),
    "warmup_steps": Conversion(_warmup, "warmup_ratio", "a step is whole; a share is a ratio", is_noted=True),
    "save_strategy": Conversion(
        _one_of({False: "no"}, "save_strategy"),
        "save_strategy: steps",
        _YAML_NO,
    ),
    "eval_strategy": Conversion(_one_of({False: "no"}, "eval_strategy"), "eval_strategy: no", _YAML_NO),
    "saves_per_epoch": Conversion(
        _no_interval("save_strategy", "saves_per_epoch"), "save_strategy: no", "0 times is never", is_noted=True
    ),
    "evals_per_epoch": Conversion(
        _no_interval("eval_strategy", "evals_per_epoch"), "eval_strategy: no", "0 times is never", is_noted=True
    ),
    "gradient_checkpointing": Conversion(
        _recomputing,
        "gradient_checkpointing: true, activation_offloading: true",
        "activations are recomputed all the same; what is moved goes to main memory, never to a disk",
        is_noted=True,
    ),
    "activation_offloading": Conversion(
        _one_of(dict.fromkeys(("legacy", "disk", "hidden_states"), True), "activation_offloading"),
        "activation_offloading: true",
        "there is one way to move activations: to main memory",
        is_noted=True,
    ),
    "torch_compile": Conversion(
        _one_of({"auto": False}, "torch_compile"), "torch_compile: false", "compiling pays in long trainings only"
    ),
    "tokens": Conversion(_tokens, "special_tokens", "a mapping of roles belongs there", is_noted=True),
    "resume_from_checkpoint": Conversion(
        _resume, "resume_from_checkpoint: DIRECTORY", "`ftl resume ID` finds the newest checkpoint of a run"
    ),
}
