"""The flat dialect people write: every key is derived from a section, converted, refused or ignored, with the reason.

To honour a key, give a field its `Flat(...)` mark and take the key out of the tables below.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ftl.config.data import DatasetSection
from ftl.config.dialect import Aside, Conversion, Convert, Dialect, Values
from ftl.config.marker import Flat
from ftl.config.train import TrainConfig
from ftl.section import Section
from ftl.yamlfile import annotations_at

FlagKind = Literal["switch", "value", "either"]


@dataclass(frozen=True)
class FlatKey:
    """A key of the dialect and the field it fills."""

    key: str
    loc: tuple[str, ...]
    """The field: ("adapter", "rank")."""
    annotation: Any  # Any: a type annotation
    doc: str
    """The first line of the field's docstring, or nothing."""
    is_bool: bool


def keys() -> dict[str, FlatKey]:
    """Every derived key, in the order of the sections. For flags, completion and docs."""
    return dict(_KEYS)


def flag_kinds() -> dict[str, FlagKind]:
    """Every key that may be given as a flag. One that will be refused or ignored may come with a value or without."""
    derived = {key.key: key.is_bool for key in _KEYS.values()}
    converted = {key: conversion.is_bool for key, conversion in CONVERT.items()}
    kinds: dict[str, FlagKind] = {
        key: "switch" if is_bool else "value" for key, is_bool in (derived | converted).items()
    }
    return kinds | dict.fromkeys((*REFUSED, *IGNORED), "either")


def _derive(schema: type[Section]) -> dict[str, FlatKey]:
    found: dict[str, FlatKey] = {}
    for section in schema.model_fields:
        for kind in annotations_at(schema, (section,)):
            for name, info in kind.model_fields.items():
                mark = next((item for item in info.metadata if isinstance(item, Flat)), None)
                if mark is None:
                    continue
                if mark.key in found:
                    raise TypeError(f"flat key {mark.key!r} is claimed by {found[mark.key].loc} and {(section, name)}")
                is_bool = bool in annotations_at(kind, (name,))
                doc = (info.description or "").partition("\n")[0]
                found[mark.key] = FlatKey(mark.key, (section, name), info.annotation, doc, is_bool)
    return found


def _same(*names: str) -> Convert:
    """The same value under each of `names`."""
    return lambda value, given: dict.fromkeys(names, value)


def _one_of(choices: Mapping[Any, Any], key: str) -> Convert:  # Any: what YAML holds
    """For values of a derived key: those in `choices` are replaced; a ValueError there is raised; others pass."""

    def convert(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
        chosen = choices.get(value, value) if isinstance(value, str | bool) else value
        if isinstance(chosen, ValueError):
            raise chosen
        return {key: chosen}

    return convert


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


_PRECISIONS = {"bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "float16": "fp16", "float32": "fp32"}


def _precision(key: str) -> Convert:
    def convert(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
        if value is True:
            return {"precision": _PRECISIONS[key]}
        if value == "full" and key == "bf16":
            raise ValueError("full is not built yet; `bf16: true` computes in bf16 too")
        if value is not False and not (value == "auto" and key == "bf16"):
            raise ValueError("must be true, false or auto" if key == "bf16" else "must be true or false")
        others = [given.get(other) for other in (*_PRECISIONS, "precision") if other != key]
        if key != "bf16" or any(other not in (None, False) for other in others):
            return {}  # off is what the others say already
        return {"precision": "auto" if value == "auto" else "fp32"}

    return convert


_ATTENTIONS = {"flash_attention": "flash_attention_2", "sdp_attention": "sdpa", "eager_attention": "eager"}


def _attention(key: str) -> Convert:
    def convert(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
        if not isinstance(value, bool):
            raise ValueError("must be true or false")
        if value:
            return {"attn_implementation": _ATTENTIONS[key]}
        others = [given.get(other) for other in (*_ATTENTIONS, "attn_implementation") if other != key]
        is_decided = any(other not in (None, False) for other in others)
        return {"attn_implementation": "sdpa"} if key == "flash_attention" and not is_decided else {}

    return convert


def _packed_len(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    return {"sample_packing": True, "sequence_len": value}


def _base_model_config(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    if value != given.get("base_model"):
        raise ValueError("another config than the base model's own is not built yet; remove it")
    return {}


def _tokens(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    return {"special_tokens": value} if isinstance(value, dict) else {"tokens": value}


def _resume(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    if value is True or value == "auto":
        raise ValueError("must be a checkpoint directory; `ftl resume ID` goes on from a run's newest one")
    return {} if value is False else {"resume_from_checkpoint": value}


def _message_field(name: str) -> Convert:
    def convert(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
        fields = {"role": given.get("message_field_role"), "content": given.get("message_field_content")}
        return {"message_property_mappings": {key: text for key, text in fields.items() if text is not None}}

    return convert


def _rl(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
    return {} if value is False else {"objective": value}


def _reward(kind: str) -> Convert:
    def convert(value: Any, given: Values) -> dict[str, Any]:  # Any: what YAML holds
        if not isinstance(value, bool):
            raise ValueError("must be true or false")
        return {"objective": kind} if value else {}

    return convert


def _all(names: Iterable[str], reason: str, *harmless: Any) -> dict[str, Aside]:  # Any: what YAML holds
    return {name: Aside(reason, (False, *harmless), reason.startswith("not built yet")) for name in names}


_NAMES = "another spelling"
_SWITCH = "one key, `attn_implementation`, holds the choice"
_FORMAT = "one key, `precision`, holds the number format"

CONVERT: dict[str, Conversion] = {
    "batch_size": Conversion(_batch_size, "batch_size / micro_batch_size", is_noted=True),
    "revision_of_model": Conversion(_same("model_revision"), _NAMES),
    "type_of_model": Conversion(_same("model_type"), _NAMES),
    "evaluation_strategy": Conversion(
        lambda value, given: {"eval_strategy": "no" if value is False else value}, "transformers' older name"
    ),
    "adam_eps": Conversion(_same("adam_epsilon"), _NAMES),
    "lora_out_dir": Conversion(_same("output_dir"), "adapter and model have one place"),
    "base_model_config": Conversion(_base_model_config, "the base model brings its config"),
    "max_packed_sequence_len": Conversion(_packed_len, "what packing was called in 2023", is_noted=True),
    "rl": Conversion(_rl, "one key, `objective`, says what is minimised"),
    "reward_model": Conversion(_reward("reward"), "one key, `objective`, says what is minimised", is_bool=True),
    "process_reward_model": Conversion(_reward("prm"), "one key, `objective`, says what is minimised", is_bool=True),
    **{key: Conversion(_attention(key), _SWITCH, is_bool=True) for key in _ATTENTIONS},
    **{key: Conversion(_precision(key), _FORMAT, is_bool=True) for key in _PRECISIONS},
}

_HUB = "not built yet: delivery to the Hub comes in a later release; `ftl pull` copies the model to this machine"
_TRACKER = "not built yet: trackers come in a later release; events.jsonl of the run has every number"
_LATER = "not built yet"
_PREFERENCE = "not built yet: only supervised fine-tuning so far"
_SHARDING = "not built yet: only plain data parallel training so far"
_QUANTISED = "not built yet: base models are loaded unquantised; LoRA on bf16 needs about 2 bytes a parameter"
_KERNEL = "not built yet: models run with the kernels of transformers so far"
_ADAPTER = "not built yet: adapters are plain LoRA so far"
_SCHEDULE = "not built yet: the optimizer and the schedule have no further options so far"

REFUSED: dict[str, Aside] = {
    **_all(("hub_model_id", "hub_strategy", "hub_private_repo", "hub_revision", "push_to_hub"), _HUB),
    **_all(("hf_use_auth_token",), _HUB),
    "hub_token": Aside("a secret does not belong in a file; put it in the environment as HF_TOKEN"),
    **_all(("use_wandb", "wandb_project", "wandb_entity", "wandb_watch", "wandb_name", "wandb_run_id"), _TRACKER),
    **_all(("wandb_log_model", "wandb_mode"), _TRACKER, "disabled", "false"),
    **_all(("use_mlflow", "mlflow_tracking_uri", "mlflow_experiment_name", "mlflow_run_name"), _TRACKER),
    **_all(("hf_mlflow_log_artifacts", "use_tensorboard", "use_comet", "comet_project_name"), _TRACKER),
    **_all(("comet_workspace", "comet_experiment_key", "comet_mode", "comet_online", "report_to"), _TRACKER, "none"),
    **_all(("rl_beta", "dpo_beta", "kto_desirable_weight"), _PREFERENCE),
    **_all(("deepspeed", "fsdp", "fsdp_config", "use_ray", "tensor_parallel_size"), _SHARDING),
    **_all(("context_parallel_size", "sequence_parallel_degree", "device_map", "max_memory"), _SHARDING, 1, "auto"),
    **_all(
        ("load_in_8bit", "load_in_4bit", "gptq", "gptq_groupsize", "gptq_model_v1", "bnb_config_kwargs"), _QUANTISED
    ),
    **_all(("relora", "relora_steps", "relora_warmup_steps", "lora_model_dir", "lora_fan_in_fan_out"), _ADAPTER),
    **_all(("peft", "peft_use_dora", "peft_use_rslora", "peft_layers_to_transform", "loraplus_lr_ratio"), _ADAPTER),
    **_all(("loraplus_lr_embedding", "lora_on_cpu", "lr_groups", "unfrozen_parameters"), _ADAPTER),
    **_all(("lr_scheduler_kwargs", "cosine_min_lr_ratio", "cosine_constant_lr_ratio", "optim_args"), _SCHEDULE),
    **_all(("optim_target_modules", "lr_quadratic_warmup", "embedding_lr", "embedding_lr_scale"), _SCHEDULE),
    **_all(("neftune_noise_alpha", "noisy_embedding_alpha", "torch_compile"), _LATER),
    **_all(("early_stopping_patience", "load_best_model_at_end", "metric_for_best_model", "save_only_model"), _LATER),
    **_all(("eval_table_size", "eval_causal_lm_metrics", "do_causal_lm_eval", "do_bench_eval"), _LATER, 0),
    **_all(("batch_flattening", "streaming"), _LATER),
    **_all(("model_config", "overrides_of_model_config", "model_kwargs", "overrides_of_model_kwargs"), _LATER),
    **_all(("resize_token_embeddings_to_32x", "gpu_memory_limit", "plugins", "added_tokens_overrides"), _LATER),
    **_all(("tokenizer_use_fast",), "only fast tokenizers are read", True),
    **_all(("s2_attention", "xformers_attention"), "not built: flash_attention or sdp_attention is as fast"),
    **_all(("eval_max_new_tokens", "eval_table_max_new_tokens", "loss_watchdog_threshold", "num_labels"), _LATER),
    **_all(("loss_watchdog_patience", "processor_type", "skip_prepare_dataset", "low_cpu_mem_usage"), _LATER),
    **_all(("lisa_n_layers", "lisa_step_interval", "lisa_layers_attribute", "relora_cpu_offload"), _ADAPTER),
    **_all(("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "flash_attn_rms_norm"), _KERNEL),
    **_all(("flash_attn_cross_entropy", "flash_attn_fuse_qkv", "flash_attn_fuse_mlp", "flash_optimum"), _KERNEL),
    **_all(("liger_rope", "liger_rms_norm", "liger_glu_activation", "liger_fused_linear_cross_entropy"), _KERNEL),
    **_all(("gptq_disable_exllama",), _QUANTISED),
    **_all(("orpo_alpha",), _PREFERENCE),
    **_all(("ray_num_workers",), _SHARDING),
}

IGNORED: dict[str, Aside] = {
    "dataset_prepared_path": Aside("tokens are cached by their content, in a place of ftl's own"),
    "dataset_processes": Aside("ftl decides how many processes read the data"),
    "dataset_keep_in_memory": Aside("tokens are mapped from disk, so they take no memory of their own"),
    "strict": Aside("ftl always refuses keys it does not know"),
    "debug": Aside("it is a flag of `preprocess`, never of a config"),
    "local_rank": Aside("ranks are given by the process that starts them"),
    "save_safetensors": Aside("weights are always written as safetensors", (True,)),
    "auto_resume_from_checkpoints": Aside("a run always goes on from its newest verified checkpoint", (True, False)),
    "gradient_checkpointing_kwargs": Aside("both ways of recomputing give the same gradients, and ftl picks one"),
    "tokenizer_type": Aside("the tokenizer's own files name its class", ("AutoTokenizer",)),
    "tokenizer_legacy": Aside("the tokenizer's own files say how it splits"),
    "base_model_ignore_patterns": Aside("only safetensors and the files around them are read anyway"),
    "torchdistx_path": Aside("torchdistx is no longer developed"),
    "collator_pad_to_longest": Aside("rows are padded to the longest of their batch unless pad_to_sequence_len"),
    "remove_unused_columns": Aside("only the columns of the format are read"),
    "ddp_find_unused_parameters": Aside("no supported model has parameters without a gradient"),
    **{
        f"is_{family}_derived_model": Aside("the model's config.json says what it is", (True, False))
        for family in ("llama", "falcon", "mistral", "qwen")
    },
    **{
        key: Aside("packing is exact here and needs no estimate")
        for key in (
            "sample_packing_eff_est",
            "sample_packing_group_size",
            "sample_packing_bin_size",
            "total_num_tokens",
        )
    },
}

_EIGHT_BIT = ValueError("not built yet: optimizers with 8-bit states; adamw_torch_fused is the default")
_VALUES: dict[str, Conversion] = {
    "adapter": Conversion(_one_of({"qlora": ValueError(f"qlora is {_QUANTISED}")}, "adapter"), ""),
    "optimizer": Conversion(
        _one_of(
            {
                "adamw_hf": "adamw_torch",
                **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit", "paged_adamw_32bit"), _EIGHT_BIT),
            },
            "optimizer",
        ),
        "transformers dropped the name, the algorithm is the same",
        is_noted=True,
    ),
    "save_strategy": Conversion(
        _one_of(
            {False: "no", "best": ValueError("best is not built yet: must be steps, epoch or no")}, "save_strategy"
        ),
        "YAML reads a bare no as false",
    ),
    "eval_strategy": Conversion(_one_of({False: "no"}, "eval_strategy"), "YAML reads a bare no as false"),
    "gradient_checkpointing": Conversion(
        _one_of(
            dict.fromkeys(("unsloth", "offload"), ValueError("offloading is not built yet: must be true or false")),
            "gradient_checkpointing",
        ),
        "",
    ),
    "tokens": Conversion(_tokens, "a mapping of roles belongs there", is_noted=True),
    "resume_from_checkpoint": Conversion(_resume, ""),
}

_SHAREGPT = ValueError(
    "is written today as `type: chat_template`, `field_messages: conversations` and"
    " `message_property_mappings: {role: from, content: value}`"
)

_KEYS = _derive(TrainConfig)

TRAIN = Dialect(frozenset(_KEYS), CONVERT, REFUSED, IGNORED, _VALUES)
"""The top level of a training config."""

DATASET = Dialect(
    derived=frozenset(DatasetSection.model_fields),
    convert={
        "message_field_role": Conversion(_message_field("role"), "one mapping holds both"),
        "message_field_content": Conversion(_message_field("content"), "one mapping holds both"),
    },
    refused={
        **_all(("conversation", "input_transform", "input_format", "field_human", "field_model"), _LATER),
        **_all(("preprocess_shards",), _LATER),
        **_all(("trust_remote_code",), "datasets are data: no code of theirs is run"),
    },
    ignored={},
    values={"type": Conversion(_one_of(dict.fromkeys(("sharegpt", "sharegpt:chat"), _SHAREGPT), "type"), "")},
)
"""One entry of `datasets` or `test_datasets`."""
