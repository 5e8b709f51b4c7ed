"""What the keys of the file say against one another, whether ftl can train them yet or not."""

from typing import Any

from ftl.config.dialect import Values
from ftl.config.rules.mesh import MESH
from ftl.config.rules.rule import Holds, KeyRule, both, is_given, is_on, on_and, together
from ftl.config.rules.sharding import FSDP, SHARDING, offloads, recomputes_by_layer, shards_by

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
_RELORA = ("relora", "relora_steps")


def _restarts_by(key: str) -> Holds:
    """Whether `key` is what asks for ReLoRA: `relora`, or the `relora_steps` of an older file."""
    if key == "relora":
        return is_given("relora")
    return lambda given: is_on(given, "relora_steps") and not is_on(given, "relora")


def _may_be_flash(given: Values) -> bool:
    return str(given.get("attn_implementation") or "flash_").startswith(("flash_", "varlen"))


def _evaluates(given: Values) -> bool:
    has_rows = is_on(given, "val_set_size") or is_on(given, "test_datasets")
    return has_rows and given.get("eval_strategy") not in ("no", False)


_QUANTISATION = (
    *(
        KeyRule(
            key,
            on_and(key, lambda given: not is_on(given, "adapter")),
            "needs an `adapter`: weights in so few bits cannot be trained themselves",
            "add `adapter: lora`, or remove it",
        )
        for key in ("load_in_8bit", "load_in_4bit", "gptq")
    ),
    together("load_in_8bit", "load_in_4bit", "cannot be given together with `load_in_4bit`"),
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
)


def _relora_rules(key: str) -> tuple[KeyRule, ...]:
    is_used = _restarts_by(key)
    excluded = (
        *((other, shards_by(other), "shards the base that it merges into") for other in FSDP),
        ("deepspeed", is_given("deepspeed"), "shards the base that it merges into"),
        *((other, is_given(other), "replaces the layers that it merges into") for other in _FUSED),
    )
    return (
        KeyRule(
            key,
            lambda given: is_used(given) and given.get("adapter") not in ("lora", "qlora"),
            "needs `adapter` lora or qlora: it merges adapters into the base again and again",
            "add one, or remove it",
        ),
        *(
            KeyRule(
                key,
                both(is_used, is_other),
                f"cannot be used together with `{other}`, which {does}",
                "keep one of them",
            )
            for other, is_other, does in excluded
        ),
        KeyRule(
            key,
            lambda given: is_used(given) and given.get("lr_scheduler") == "one_cycle",
            "restarts the warmup after each merge, which `lr_scheduler` one_cycle cannot",
            "use cosine",
        ),
    )


_ADAPTERS = (
    *(rule for key in _RELORA for rule in _relora_rules(key)),
    *(
        together(key, "adapter", "replaces the linear layers that the `adapter` sits on", "remove one of them")
        for key in _FUSED
    ),
    KeyRule(
        "peft_layers_pattern",
        lambda given: is_on(given, "peft_layers_pattern") and not is_on(given, "peft_layers_to_transform"),
        "needs `peft_layers_to_transform` beside it",
        "say which layers, or remove it",
    ),
    together(
        "unfrozen_parameters",
        "peft_layers_to_transform",
        "cannot be used together with `peft_layers_to_transform`: both choose what is trained",
    ),
)

_KERNELS = (
    *(
        together(key, other, f"computes the same loss as `{other}`")
        for number, key in enumerate(_CROSS_ENTROPIES)
        for other in _CROSS_ENTROPIES[:number]
    ),
    *(
        together(key, other, f"cannot be used together with `{other}`, {why}", "remove one of them")
        for key in _LORA_KERNELS
        for other, why in (
            ("load_in_8bit", "whose weights it does not read"),
            ("deepspeed", "which shards the weights that it fuses"),
        )
    ),
    *(
        KeyRule(
            key,
            on_and(key, shards_by(other)),
            f"cannot be used together with `{other}`, which shards the weights that it fuses",
            "remove one of them",
        )
        for key in _LORA_KERNELS
        for other in FSDP
    ),
    *(
        together(f"unsloth_lora_{part}", f"lora_{part}_kernel", f"is the same as `lora_{part}_kernel`")
        for part in ("mlp", "qkv", "o")
    ),
    KeyRule(
        "batch_flattening",
        lambda given: given.get("batch_flattening") is True and not _may_be_flash(given),
        "needs flash attention, and `attn_implementation` says otherwise",
        "remove one of them",
    ),
    together("batch_flattening", "sample_packing", "lays rows end to end, which `sample_packing` does already"),
    KeyRule(
        "batch_flattening",
        lambda given: given.get("batch_flattening") is True and is_on(given, "pad_to_sequence_len"),
        "leaves no padding, and `pad_to_sequence_len` asks for it",
        "remove one of them",
    ),
)

_EVALUATION = (
    KeyRule(
        "eval_causal_lm_metrics",
        lambda given: is_on(given, "eval_causal_lm_metrics") and not _are_metrics(given["eval_causal_lm_metrics"]),
        f"must be a list of {', '.join(_TEXT_METRICS)}",
    ),
    *(
        KeyRule(
            key,
            on_and(key, lambda given: not _evaluates(given)),
            "needs an evaluation loss",
            "give `val_set_size` or `test_datasets`, and no `eval_strategy: no`",
        )
        for key in ("early_stopping_patience", "load_best_model_at_end")
    ),
    KeyRule(
        "save_strategy",
        lambda given: given.get("save_strategy") == "best" and not _evaluates(given),
        "best needs an evaluation loss",
        "give `val_set_size` or `test_datasets`, and no `eval_strategy: no`",
    ),
)

_DELIVERY = (
    KeyRule(
        "push_to_hub",
        lambda given: is_on(given, "push_to_hub") and not is_on(given, "hub_model_id"),
        "needs the name of the repository",
        "write `hub_model_id: user/name`",
    ),
)


def _are_metrics(value: Any) -> bool:  # Any: what YAML holds
    return isinstance(value, list) and all(item in _TEXT_METRICS for item in value)


KEY_RULES: tuple[KeyRule, ...] = (*_QUANTISATION, *SHARDING, *MESH, *_ADAPTERS, *_KERNELS, *_EVALUATION, *_DELIVERY)

KEY_NOTES: tuple[KeyRule, ...] = (
    KeyRule(
        "trust_remote_code",
        lambda given: is_on(given, "trust_remote_code") and not is_on(given, "model_revision"),
        "runs whatever code a repository of the Hub holds when the run is started",
        "read it, and pin what you have read: `model_revision: COMMIT`",
    ),
    KeyRule(
        "wandb_run_id",
        lambda given: is_on(given, "wandb_run_id") and not is_on(given, "wandb_name"),
        "is an id, which a second run would go on under",
        "to give the run a name use `wandb_name`",
    ),
    KeyRule(
        "gradient_checkpointing",
        lambda given: is_on(given, "gradient_checkpointing") and offloads(given) and not recomputes_by_layer(given),
        "gathers the weights that `fsdp_config` offloads a second time in every step",
        "write `fsdp_config: {activation_checkpointing: true}` in its place, which does not",
    ),
    KeyRule(
        "batch_flattening",
        lambda given: given.get("batch_flattening") is True and given.get("micro_batch_size", 1) == 1,
        "has no effect with `micro_batch_size` 1",
        "remove it, or take more rows at a time",
    ),
)
"""Worth telling; the training goes ahead."""
