"""Keys of a training config that say in older or other words what today's keys say."""

from collections.abc import Mapping
from typing import Any

from ftl.config.dialect import Conversion, Convert, NotBuiltError, Values
from ftl.config.tables import accelerator, fsdp


def _same(name: str) -> Convert:
    """The same value under `name`."""
    return lambda value, given: {name: value}


def _switch(modern: Mapping[str, Any]) -> Convert:  # Any: what YAML holds
    """`modern` where the key is true, nothing where it is false."""

    def convert(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
        _need_bool(value)
        return dict(modern) if value else {}

    return convert


def _need_bool(value: Any) -> None:  # Any: what YAML holds
    if not isinstance(value, bool):
        raise ValueError("must be true or false")


def _batch_size(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    micro = given.get("micro_batch_size", 1)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError("must be a whole number")
    if "micro_batch_size" not in given:
        raise ValueError("needs `micro_batch_size` beside it; batch_size / micro_batch_size steps are accumulated")
    if not isinstance(micro, int) or micro < 1:
        return {}  # reported at micro_batch_size
    if value < micro or value % micro:
        raise ValueError(f"must be a multiple of micro_batch_size, which is {micro}")
    return {"gradient_accumulation_steps": value // micro}


def _relora_steps(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    return {"relora": True, "jagged_restart_steps": value} if value else {}


def _peft(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    options = value.get("loftq_config") if isinstance(value, dict) else None
    if not isinstance(options, dict) or set(value) != {"loftq_config"} or set(options) - {"loftq_bits", "loftq_iter"}:
        raise ValueError("must be {loftq_config: {loftq_bits: 4}}")
    if options.get("loftq_bits", 4) != 4 or options.get("loftq_iter", 1) != 1:
        raise ValueError("must be loftq_bits 4 and loftq_iter 1: the adapter then fits any 4-bit load of the base")
    return {"peft_init_lora_weights": "loftq"}


_PRECISIONS = {"bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "float16": "fp16", "float32": "fp32"}


def _precision(key: str) -> Convert:
    def convert(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
        if value is True and key != "bfloat16":
            return {"precision": _PRECISIONS[key]}
        if (value is True and key == "bfloat16") or (value == "full" and key == "bf16"):
            return {"precision": "bf16", "weights_dtype": "bf16"}
        if value is not False and not (value == "auto" and key == "bf16"):
            raise ValueError("must be true, false, auto or full" if key == "bf16" else "must be true or false")
        if value is False and key in ("bf16", "fp16") and given.get("precision") == key:
            return {"precision": "fp32"}
        others = [given.get(other) for other in (*_PRECISIONS, "precision", "torch_dtype") if other != key]
        if key != "bf16" or any(other not in (None, False) for other in others):
            return {}  # off is what the others say already
        return {"precision": "auto" if value == "auto" else "fp32"}

    return convert


def _torch_dtype(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    name = value.removeprefix("torch.") if isinstance(value, str) else value
    if name == "auto":
        return {}
    if name not in ("bfloat16", "float16", "float32"):
        raise ValueError("must be bfloat16, float16, float32 or auto")
    return {"precision": "bf16", "weights_dtype": "bf16"} if name == "bfloat16" else {"precision": _PRECISIONS[name]}


_ATTENTIONS = {
    "flash_attention": "flash_attention_2",
    "sdp_attention": "sdpa",
    "eager_attention": "eager",
    "flex_attention": "flex_attention",
    "xformers_attention": "xformers",
}


def _attention(key: str) -> Convert:
    def convert(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
        _need_bool(value)
        if value:
            return {"attn_implementation": _ATTENTIONS[key]}
        others = [given.get(other) for other in (*_ATTENTIONS, "attn_implementation") if other != key]
        is_decided = any(other not in (None, False, _ATTENTIONS[key]) for other in others)
        return {"attn_implementation": "sdpa"} if key == "flash_attention" and not is_decided else {}

    return convert


def _eta_min(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    highest = given.get("learning_rate")
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        raise ValueError("must be a learning rate, at least 0")
    if isinstance(highest, bool) or not isinstance(highest, int | float) or highest <= 0:
        return {}  # reported at learning_rate
    return {"cosine_min_lr_ratio": value / highest}


def _packed_len(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    return {} if value is False else {"sample_packing": True, "sequence_len": value}


def _objective(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    return {} if value is False else {"objective": value}


def _rope_scaling(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    return {"overrides_of_model_config": {"rope_scaling": value}} if value else {}


def _full_finetune(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    _need_bool(value)
    if value and given.get("adapter"):
        raise ValueError("contradicts `adapter`; keep one of them")
    return {}


def _streaming(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    _need_bool(value)
    if value and not given.get("pretraining_dataset"):
        raise NotBuiltError(
            "not built yet for `datasets`, which are tokenised once, into files that take little memory: remove it; "
            "texts that are too many to store go to `pretraining_dataset`, which is always streamed"
        )
    return {}


_BUILT_IN = "axolotl.integrations."
# Plugin -> the keys it switches on by being there. The others are switched on by keys of their own.
_PLUGINS: dict[str, dict[str, Any]] = {  # Any: what YAML holds
    "liger.LigerPlugin": {},
    "cut_cross_entropy.CutCrossEntropyPlugin": {"cut_cross_entropy": True},
    "spectrum.SpectrumPlugin": {},
    "lm_eval.LMEvalPlugin": {},
    "kernels.KernelsPlugin": {},
    "kd.KDPlugin": {},
    "grokfast.GrokfastPlugin": {"grokfast_alpha": 0.98},
}


def _plugins(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("must be a list of names")
    modern: dict[str, Any] = {}  # Any: what YAML holds
    for name in names:
        known = _PLUGINS.get(name.removeprefix(_BUILT_IN)) if name.startswith(_BUILT_IN) else None
        if known is None:
            raise NotBuiltError(f"not built yet: {name}; a known plugin only switches on keys, so name those")
        modern |= {key: item for key, item in known.items() if key not in given}
    return modern


def _report_to(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    names = [value] if isinstance(value, str) else value or []
    if not isinstance(names, list) or not all(name in ("none", "comet_ml", *_TRACKERS) for name in names):
        raise ValueError(f"must be none, or a list of {', '.join(_TRACKERS)}")
    return {f"use_{name.removesuffix('_ml')}": True for name in names if name != "none"}


def _samples(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    _need_bool(value)
    return {"eval_table_size": 3} if value and not given.get("eval_table_size") else {}


_TRACKERS = ("wandb", "mlflow", "comet", "tensorboard", "trackio")
_NAMES = "another spelling"
_SWITCH = "one key holds the choice of attention"
_FORMAT = "one key holds the number format"
_OBJECTIVE = "one key says what is minimised"
_UNSLOTH = "unsloth's patches are gone from transformers; the fused kernels do the same"
_FUSED = "FlashAttention no longer brings these layers; Liger's kernels do the same"

CONVERT: dict[str, Conversion] = {
    "batch_size": Conversion(
        _batch_size, "gradient_accumulation_steps", "batch_size / micro_batch_size", is_noted=True
    ),
    "revision_of_model": Conversion(_same("model_revision"), "model_revision", _NAMES),
    "type_of_model": Conversion(_same("model_type"), "model_type", _NAMES),
    "evaluation_strategy": Conversion(_same("eval_strategy"), "eval_strategy", "transformers' older name"),
    "adam_eps": Conversion(_same("adam_epsilon"), "adam_epsilon", _NAMES),
    "peft": Conversion(_peft, "peft_init_lora_weights: loftq", "LoftQ is a way to start the matrices"),
    "lora_out_dir": Conversion(_same("output_dir"), "output_dir", "adapter and model have one place"),
    "project_name": Conversion(_same("wandb_project"), "wandb_project", "the trackers' keys name their tracker"),
    "report_to": Conversion(_report_to, "use_wandb, use_mlflow, ...", "each tracker has a switch of its own"),
    "generate_samples": Conversion(
        _samples, "eval_table_size: 3", "one key says how many are shown", is_noted=True, is_bool=True
    ),
    "eval_table_max_new_tokens": Conversion(_same("eval_max_new_tokens"), "eval_max_new_tokens", _NAMES),
    "dpo_beta": Conversion(_same("rl_beta"), "rl_beta", "one key for every preference loss"),
    "noisy_embedding_alpha": Conversion(_same("neftune_noise_alpha"), "neftune_noise_alpha", "the name of the paper"),
    "liger_swiglu": Conversion(_same("liger_glu_activation"), "liger_glu_activation", "Liger's newer name"),
    "context_parapllel_size": Conversion(
        _same("context_parallel_size"), "context_parallel_size", "a slip that axolotl's own examples hold"
    ),
    "sequence_parallel_degree": Conversion(
        _same("context_parallel_size"), "context_parallel_size", "axolotl's newer name"
    ),
    "relora_steps": Conversion(_relora_steps, "relora: true, jagged_restart_steps", "axolotl's newer names"),
    "relora_warmup_steps": Conversion(
        _same("jagged_restart_warmup_steps"), "jagged_restart_warmup_steps", "axolotl's newer name"
    ),
    "relora_anneal_steps": Conversion(
        _same("jagged_restart_anneal_steps"), "jagged_restart_anneal_steps", "axolotl's newer name"
    ),
    "lr_div_factor": Conversion(
        lambda value, given: {"lr_scheduler_kwargs": {"div_factor": value}},
        "lr_scheduler_kwargs: {div_factor: ...}",
        "the schedule's own keys have one place",
    ),
    "eta_min": Conversion(
        _eta_min, "cosine_min_lr_ratio", "eta_min / learning_rate: the rate to end at, as a share", is_noted=True
    ),
    "streaming_multipack_buffer_size": Conversion(
        _same("pretrain_multipack_buffer_size"), "pretrain_multipack_buffer_size", _NAMES
    ),
    "streaming": Conversion(
        _streaming, "pretraining_dataset", "a pretraining_dataset is always streamed", is_bool=True
    ),
    "model_config": Conversion(_same("overrides_of_model_config"), "overrides_of_model_config", _NAMES),
    "model_kwargs": Conversion(_same("overrides_of_model_kwargs"), "overrides_of_model_kwargs", _NAMES),
    "rope_scaling": Conversion(
        _rope_scaling, "overrides_of_model_config: {rope_scaling: ...}", "it is a key of the model's config"
    ),
    "max_packed_sequence_len": Conversion(
        _packed_len, "sample_packing: true, sequence_len", "what packing was called in 2023", is_noted=True
    ),
    "full_finetune": Conversion(
        _full_finetune, "no adapter", "without `adapter` all weights are trained", is_bool=True
    ),
    "fsdp": Conversion(
        fsdp.from_modes, "fsdp_config: {}", "the weights are sharded by torch's FSDP2; {} is all of its defaults"
    ),
    "fsdp_version": Conversion(fsdp.from_version, "fsdp_config", "both versions are trained by torch's FSDP2"),
    "fsdp_final_state_dict_type": Conversion(
        fsdp.from_final_kind, "fsdp_config: {final_state_dict_type: ...}", "it has its place there"
    ),
    "accelerator_config": Conversion(
        accelerator.from_settings,
        "nothing",
        "each process reads its own rows in the order that the seed gives, whatever it says",
        is_noted=True,
    ),
    "plugins": Conversion(_plugins, "the keys of the plugin", "its keys are read without it"),
    "rl": Conversion(_objective, "objective", _OBJECTIVE),
    "reward_model": Conversion(_switch({"objective": "reward"}), "objective: reward", _OBJECTIVE, is_bool=True),
    "process_reward_model": Conversion(_switch({"objective": "prm"}), "objective: prm", _OBJECTIVE, is_bool=True),
    "kd_trainer": Conversion(_switch({"objective": "kd"}), "objective: kd", _OBJECTIVE, is_bool=True),
    **{
        key: Conversion(_attention(key), f"attn_implementation: {name}", _SWITCH, is_bool=True)
        for key, name in _ATTENTIONS.items()
    },
    "flash_optimum": Conversion(
        _switch({"attn_implementation": "sdpa"}),
        "attn_implementation: sdpa",
        "BetterTransformer is part of torch today",
        is_noted=True,
        is_bool=True,
    ),
    **{
        key: Conversion(_precision(key), f"precision: {name}", _FORMAT, is_bool=True)
        for key, name in _PRECISIONS.items()
    },
    "torch_dtype": Conversion(_torch_dtype, "precision", _FORMAT),
    **{
        old: Conversion(_same(new), new, _UNSLOTH, is_bool=True)
        for old, new in (
            ("unsloth_lora_mlp", "lora_mlp_kernel"),
            ("unsloth_lora_qkv", "lora_qkv_kernel"),
            ("unsloth_lora_o", "lora_o_kernel"),
            ("unsloth_cross_entropy_loss", "liger_fused_linear_cross_entropy"),
            ("unsloth_rms_norm", "liger_rms_norm"),
            ("unsloth_rope", "liger_rope"),
        )
    },
    **{
        old: Conversion(_same(new), new, _FUSED, is_bool=True)
        for old, new in (
            ("flash_attn_cross_entropy", "liger_cross_entropy"),
            ("flash_attn_rms_norm", "liger_rms_norm"),
            ("flash_attn_fuse_mlp", "liger_glu_activation"),
        )
    },
}
