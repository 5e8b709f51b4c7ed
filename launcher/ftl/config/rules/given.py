"""What the keys of the file say against one another, whether ftl can train them yet or not."""

import re
from collections.abc import Callable
from typing import Any

from ftl.config.dialect import Values
from ftl.config.rules.rule import KeyRule, is_on

_CROSS_ENTROPIES = (
    *("liger_cross_entropy", "liger_fused_linear_cross_entropy", "flash_attn_cross_entropy"),
    *("unsloth_cross_entropy_loss", "cut_cross_entropy"),
)
_LORA_KERNELS = (
    *("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel"),
    *("unsloth_lora_mlp", "unsloth_lora_qkv", "unsloth_lora_o"),
)
_FUSED = ("flash_attn_fuse_qkv", "flash_attn_fuse_mlp")
_TEXT_METRICS = ("sacrebleu", "comet", "ter", "chrf", "perplexity")
_OLD_FALCON = re.compile(r"falcon-(rw-)?\d+b", re.I)


def _together(where: str, other: str, allowed: str, remedy: str = "keep one of them") -> KeyRule:
    """`where` and `other` are both on."""
    return KeyRule(where, lambda given: is_on(given, where, other), allowed, remedy)


def _on_and(key: str, also: Callable[[Values], bool]) -> Callable[[Values], bool]:
    return lambda given: is_on(given, key) and also(given)


def _is_eight_bit(given: Values) -> bool:
    return "8bit" in str(given.get("optimizer"))


def _offloads(given: Values) -> bool:
    settings, modes = given.get("fsdp_config"), given.get("fsdp")
    if isinstance(settings, dict) and (is_on(settings, "fsdp_offload_params") or is_on(settings, "offload_params")):
        return True
    return isinstance(modes, list | str) and "offload" in modes


def _has_fsdp(given: Values) -> bool:
    return is_on(given, "fsdp") or is_on(given, "fsdp_config")


def _relora(given: Values) -> bool:
    return is_on(given, "relora") or is_on(given, "relora_steps")


def _is_falcon(given: Values) -> bool:
    is_named = _OLD_FALCON.search(str(given.get("base_model"))) or str(given.get("model_type")).startswith("Falcon")
    return bool(is_named) or is_on(given, "is_falcon_derived_model")


def _packs_evaluation(given: Values) -> bool:
    return is_on(given, "sample_packing") and given.get("eval_sample_packing") is not False


def _is_at_most(value: Any, bound: float) -> bool:  # Any: what YAML holds
    return isinstance(value, int | float) and not isinstance(value, bool) and value <= bound


def _evaluates(given: Values) -> bool:
    has_rows = is_on(given, "val_set_size") or is_on(given, "test_datasets")
    return has_rows and given.get("eval_strategy") not in ("no", False)


_QUANTISATION = (
    *(
        KeyRule(
            key,
            _on_and(key, lambda given: not is_on(given, "adapter")),
            "needs an `adapter`: weights in so few bits cannot be trained themselves",
            "add `adapter: lora`, or remove it",
        )
        for key in ("load_in_8bit", "load_in_4bit", "gptq")
    ),
    _together("load_in_8bit", "load_in_4bit", "cannot be given together with `load_in_4bit`"),
    KeyRule(
        "load_in_8bit",
        lambda given: is_on(given, "load_in_8bit") and given.get("adapter") == "qlora",
        "contradicts `adapter` qlora, which keeps the base in 4 bits",
        "write `adapter: lora`, or remove it",
    ),
    KeyRule(
        "load_in_4bit",
        lambda given: given.get("load_in_4bit") is False and given.get("adapter") == "qlora",
        "contradicts `adapter` qlora, which keeps the base in 4 bits",
        "write `adapter: lora`, or remove it",
    ),
    KeyRule(
        "gptq",
        lambda given: is_on(given, "gptq") and given.get("adapter") == "qlora",
        "contradicts `adapter` qlora: the base is quantised already",
        "write `adapter: lora`",
    ),
    _together("max_memory", "gpu_memory_limit", "cannot be given together with `gpu_memory_limit`"),
)

_SHARDING = (
    KeyRule(
        "deepspeed",
        lambda given: is_on(given, "deepspeed") and _has_fsdp(given),
        "cannot be used together with `fsdp`: both shard the same weights",
        "keep one of them",
    ),
    KeyRule(
        "optimizer",
        lambda given: _is_eight_bit(given) and _offloads(given),
        "keeps its 8-bit states on the GPU, and `fsdp_config` offloads the parameters to main memory",
        "use adamw_torch_fused, or do not offload",
    ),
    KeyRule(
        "fsdp",
        lambda given: is_on(given, "fsdp") and _is_falcon(given),
        "cannot shard the Falcon model that `base_model` names",
        "use deepspeed, or plain data parallel training",
    ),
    KeyRule(
        "torch_compile",
        lambda given: given.get("torch_compile") is True and is_on(given, "deepspeed"),
        "is decided by the file that `deepspeed` names",
        "set it there",
    ),
)

_ADAPTERS = (
    KeyRule(
        "relora_steps",
        lambda given: _relora(given) and given.get("adapter") not in ("lora", "qlora"),
        "needs `adapter` lora or qlora: it merges adapters into the base again and again",
        "add one, or remove it",
    ),
    *(
        KeyRule(
            "relora_steps",
            _on_and(other, _relora),
            f"cannot be used together with `{other}`, which {does}",
            "keep one of them",
        )
        for other, does in (
            ("fsdp", "shards the base that it merges into"),
            ("deepspeed", "shards the base that it merges into"),
            *((key, "replaces the layers that it merges into") for key in _FUSED),
        )
    ),
    KeyRule(
        "relora_steps",
        lambda given: _relora(given) and given.get("lr_scheduler") == "one_cycle",
        "restarts the warmup after each merge, which `lr_scheduler` one_cycle cannot",
        "use cosine",
    ),
    *(
        _together(key, "adapter", "replaces the linear layers that the `adapter` sits on", "remove one of them")
        for key in _FUSED
    ),
    KeyRule(
        "peft_layers_pattern",
        lambda given: is_on(given, "peft_layers_pattern") and not is_on(given, "peft_layers_to_transform"),
        "needs `peft_layers_to_transform` beside it",
        "say which layers, or remove it",
    ),
    _together(
        "unfrozen_parameters",
        "peft_layers_to_transform",
        "cannot be used together with `peft_layers_to_transform`: both choose what is trained",
    ),
)

_KERNELS = (
    *(
        _together(key, other, f"computes the same loss as `{other}`")
        for number, key in enumerate(_CROSS_ENTROPIES)
        for other in _CROSS_ENTROPIES[:number]
    ),
    *(
        _together(key, other, f"cannot be used together with `{other}`, {why}", "remove one of them")
        for key in _LORA_KERNELS
        for other, why in (
            ("load_in_8bit", "whose weights it does not read"),
            ("fsdp", "which shards the weights that it fuses"),
            ("deepspeed", "which shards the weights that it fuses"),
        )
    ),
    *(
        _together(f"unsloth_lora_{part}", f"lora_{part}_kernel", f"is the same as `lora_{part}_kernel`")
        for part in ("mlp", "qkv", "o")
    ),
    KeyRule(
        "batch_flattening",
        lambda given: given.get("batch_flattening") is True and given.get("attn_implementation") in ("sdpa", "eager"),
        "needs flash attention, and `attn_implementation` says otherwise",
        "remove one of them",
    ),
    _together("batch_flattening", "sample_packing", "lays rows end to end, which `sample_packing` does already"),
)

_EVALUATION = (
    *(
        KeyRule(
            key,
            _on_and(key, _packs_evaluation),
            "generates from single rows, and `sample_packing` fills them with several",
            "set `eval_sample_packing: false`",
        )
        for key in ("eval_table_size", "do_causal_lm_eval")
    ),
    KeyRule(
        "eval_causal_lm_metrics",
        lambda given: is_on(given, "eval_causal_lm_metrics") and not _are_metrics(given["eval_causal_lm_metrics"]),
        f"must be a list of {', '.join(_TEXT_METRICS)}",
    ),
    KeyRule(
        "do_bench_eval",
        lambda given: is_on(given, "do_bench_eval") and given.get("eval_strategy") in ("no", False),
        "is done at every evaluation, and `eval_strategy` says no",
        "remove one of them",
    ),
    *(
        KeyRule(
            key,
            _on_and(key, lambda given: not _evaluates(given)),
            "needs an evaluation loss",
            "give `val_set_size` or `test_datasets`, and no `eval_strategy: no`",
        )
        for key in ("early_stopping_patience", "load_best_model_at_end")
    ),
)

_TRAINING = (
    _together("noisy_embedding_alpha", "neftune_noise_alpha", "is the older name of `neftune_noise_alpha`"),
    _together("dpo_beta", "rl_beta", "is the older name of `rl_beta`"),
    KeyRule(
        "neftune_noise_alpha",
        lambda given: _is_at_most(given.get("neftune_noise_alpha"), 0),
        "must be above 0",
        "remove it to train without noise",
    ),
)


def _are_metrics(value: Any) -> bool:  # Any: what YAML holds
    return isinstance(value, list) and all(item in _TEXT_METRICS for item in value)


KEY_RULES: tuple[KeyRule, ...] = (*_QUANTISATION, *_SHARDING, *_ADAPTERS, *_KERNELS, *_EVALUATION, *_TRAINING)

KEY_NOTES: tuple[KeyRule, ...] = (
    KeyRule(
        "trust_remote_code",
        lambda given: is_on(given, "trust_remote_code") and not is_on(given, "model_revision"),
        "runs whatever code the repository holds that day",
        "read it, and pin what you have read: `model_revision: COMMIT`",
    ),
    KeyRule(
        "wandb_run_id",
        lambda given: is_on(given, "wandb_run_id") and not is_on(given, "wandb_name"),
        "is an id, which a second run would go on under",
        "to give the run a name use `wandb_name`",
    ),
    KeyRule(
        "batch_flattening",
        lambda given: given.get("batch_flattening") is True and given.get("micro_batch_size", 1) == 1,
        "has no effect with `micro_batch_size` 1",
        "remove it, or take more rows at a time",
    ),
)
"""Worth telling; the training goes ahead."""
