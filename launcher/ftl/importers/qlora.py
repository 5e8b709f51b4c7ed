"""jondurbin/qlora: a `train.py` command line as a config. Its own defaults are written out where ftl's differ."""

from typing import Any

from ftl.errors import ConfigError, Problem
from ftl.importers.commandline import parse_command
from ftl.importers.machines import place_machines
from ftl.importers.sheet import Flags, Imported

_COPIED: dict[str, tuple[str, Any]] = {  # Any: what YAML holds
    "model_max_len": ("sequence_len", 4096),
    "eval_dataset_size": ("val_set_size", 0.02),
    "num_train_epochs": ("num_epochs", 3),
    "max_steps": ("max_steps", None),
    "per_device_train_batch_size": ("micro_batch_size", 1),
    "gradient_accumulation_steps": ("gradient_accumulation_steps", 16),
    "per_device_eval_batch_size": ("eval_batch_size", 1),
    "learning_rate": ("learning_rate", 0.0002),
    "weight_decay": ("weight_decay", 0.0),
    "adam_beta1": ("adam_beta1", None),
    "adam_beta2": ("adam_beta2", None),
    "adam_epsilon": ("adam_epsilon", None),
    "max_grad_norm": ("max_grad_norm", 0.3),
    "group_by_length": ("group_by_length", False),
    "gradient_checkpointing": ("gradient_checkpointing", True),
    "neftune_noise_alpha": ("neftune_noise_alpha", 5),
    "seed": ("seed", 42),
    "data_seed": ("data_seed", None),
    "logging_steps": ("logging_steps", 10),
    "save_strategy": ("save_strategy", "steps"),
    "save_total_limit": ("save_total_limit", 40),
    "train_on_source": ("train_on_inputs", None),
    "attn_implementation": ("attn_implementation", None),
    "deepspeed": ("deepspeed", None),
    "trust_remote_code": ("trust_remote_code", None),
    "torch_compile": ("torch_compile", None),
    "resume_from_checkpoint": ("resume_from_checkpoint", None),
    "load_best_model_at_end": ("load_best_model_at_end", None),
    "metric_for_best_model": ("metric_for_best_model", None),
    "save_only_model": ("save_only_model", None),
    "hub_model_id": ("hub_model_id", None),
    "push_to_hub": ("push_to_hub", None),
    "run_name": ("wandb_name", None),
    "ddp_timeout": ("ddp_timeout", None),
}
"""Flag -> the key with the same value, and the default of that program where it has one of its own."""

_GENERATION = "generating text has no part in training here"
_MMLU = "MMLU is not measured while training"
_DROPPED = {
    "do_train": "training is what ftl does",
    "do_eval": "the evaluation set is scored whenever there is one",
    "do_predict": _GENERATION,
    "predict_with_generate": _GENERATION,
    **dict.fromkeys(
        (
            *("max_new_tokens", "min_new_tokens", "do_sample", "num_beams", "num_beam_groups", "penalty_alpha"),
            *("use_cache", "temperature", "top_k", "top_p", "typical_p", "diversity_penalty", "repetition_penalty"),
            *("length_penalty", "no_repeat_ngram_size"),
        ),
        _GENERATION,
    ),
    **dict.fromkeys(("do_mmlu_eval", "mmlu_split", "mmlu_dataset", "max_mmlu_samples", "mmlu_source_max_len"), _MMLU),
    "merged_output_dir": "`ftl merge-lora CFG` writes the merged model to output_dir/merged once it is trained",
    "source_max_len": "it belongs to the program's ancestor; model_max_len bounds the whole row",
    "target_max_len": "it belongs to the program's ancestor; model_max_len bounds the whole row",
    "expand_conversations": "needs no rows of their own: dataset_format llama2_chat trains every answer of a "
    "conversation; write `type: llama2_chat` into the config",
    "include_sources": "rows are not chosen by a column; keep the wanted ones in a file of their own",
    "max_eval_samples": "give `val_set_size` as a number of rows",
    "layers_to_freeze": "with an adapter the layers are frozen; partial freezing is `unfrozen_parameters`",
    "layer_freeze_ratio": "with an adapter the layers are frozen; partial freezing is `unfrozen_parameters`",
    "max_memory_MB": "each GPU holds the model, and takes the memory it needs",
    "max_shard_size": "weights are written in parts of transformers' usual size",
    "save_quantized_base": "the base is not written again",
    "use_auth_token": "the token HF_TOKEN is used where there is one",
    "use_fast_tokenizer": "tokenizers are read from tokenizer.json, which is the fast one",
    "padding_side": "padding changes nothing in training",
    "cache_dir": "ftl has a cache of its own",
    "dataloader_num_workers": "ftl decides how many processes read the data",
    "ddp_find_unused_parameters": "every trained parameter has a gradient",
    "remove_unused_columns": "only the columns of the format are read",
    "logging_strategy": "the loss is logged by steps",
    "overwrite_output_dir": "each run has a directory of its own",
    "using_fsdp": "FSDP is asked for with the keys `fsdp` and `fsdp_config`",
    "save_steps": "save_strategy is not steps",
    "eval_steps": "evaluation_strategy is not steps",
    "save_safetensors": "weights are always written as safetensors",
}

_MERGES = "merges an adapter into its base: `ftl merge-lora CFG` does it"
_OTHER_SCRIPTS = {
    "qmerge.py": _MERGES,
    "merge.py": _MERGES,
    "pack_samples.py": "needs no counterpart: `sample_packing: true` fills rows with several samples",
}
"""Scripts of the program that train nothing, and what is done in their place."""

_HUB_DATASETS: dict[str, tuple[str, dict[str, Any]]] = {  # Any: what YAML holds
    "alpaca": ("alpaca", {"path": "tatsu-lab/alpaca"}),
    "alpaca-clean": ("alpaca", {"path": "yahma/alpaca-cleaned"}),
    "chip2": ("chip2", {"path": "laion/OIG", "data_files": ["unified_chip2.jsonl"]}),
    "self-instruct": ("self-instruct", {"path": "yizhongw/self_instruct", "name": "self_instruct"}),
    "hh-rlhf": ("hh-rlhf", {"path": "Anthropic/hh-rlhf"}),
    "longform": ("longform", {"path": "akoksal/LongForm"}),
    "oasst1": ("oasst1", {"path": "timdettmers/openassistant-guanaco"}),
}
"""Names of datasets that the program knows -> their type, and where they are."""

_TYPES = {name: kind for name, (kind, _) in _HUB_DATASETS.items()} | {
    name: name for name in ("airoboros", "airoboros_chat", "input-output")
}


def import_qlora(text: str) -> Imported:
    """The command line in `text` as a config and, where it says how many GPUs, a cloud file.

    Raises ConfigError when it starts no training of that program, or asks for what the program itself refuses.
    """
    command = parse_command(text, ("train.py", "qlora.py"), _OTHER_SCRIPTS)
    flags, imported = Flags(command, ("lora_modules",)), Imported()
    base, given = flags.take("model_name_or_path", "meta-llama/Llama-2-7b")
    imported.place(given, {"base_model": base})
    _place_tokens(flags, imported)
    _place_weights(flags, imported)
    _place_dataset(flags, imported)
    for flag, (key, default) in _COPIED.items():
        flags.copy(flag, key, default, imported)
    _place_numbers(flags, imported)
    _place_schedule(flags, imported)
    _place_output(flags, imported)
    flags.drop_rest(_DROPPED, imported)
    place_machines(command, imported)
    return imported


def _place_tokens(flags: Flags, imported: Imported) -> None:
    for role in ("bos_token", "eos_token", "unk_token", "pad_token"):
        token, given = flags.take(role)
        if token is not None:
            imported.place(given, {"special_tokens": {**imported.config.get("special_tokens", {}), role: token}})


def _place_weights(flags: Flags, imported: Imported) -> None:
    """What is trained, and in how many bits the base is held."""
    is_full, given_full = flags.take("full_finetune", False)
    bits, given = flags.take("bits", 4)
    double, given_double = flags.take("double_quant", True)
    kind, given_kind = flags.take("quant_type", "nf4")
    if bits not in (4, 8, 16, 32) or (is_full and bits < 16):
        allowed = "must be 16 or 32 with --full_finetune" if is_full else "must be 4, 8, 16 or 32"
        raise ConfigError(Problem("--bits", str(bits), allowed))
    if is_full:
        imported.drop(given_full, "a config without `adapter` trains all weights")
    if is_full or bits > 8:
        imported.drop(given, "the base is loaded unquantised")
    else:
        imported.place(given, {"load_in_4bit": True} if bits == 4 else {"load_in_8bit": True})
    if bits == 4:
        settings = {"bnb_4bit_use_double_quant": double, "bnb_4bit_quant_type": kind}
        imported.place(f"{given_double}, {given_kind}", {"bnb_config_kwargs": settings})
    _place_adapter(flags, imported, "" if is_full else "qlora" if bits == 4 else "lora")


def _place_adapter(flags: Flags, imported: Imported, adapter: str) -> None:
    keys = (("lora_r", 64), ("lora_alpha", 16), ("lora_dropout", 0.0))
    modules, given_modules = flags.take("lora_modules", "all")
    if not adapter:
        for flag, _ in keys:
            value, given = flags.take(flag)
            if value is not None:
                imported.drop(given, "there is no adapter")
        return
    imported.place("no --full_finetune", {"adapter": adapter})
    for flag, default in keys:
        flags.copy(flag, flag, default, imported)
    if modules == "all":
        imported.place(given_modules, {"lora_target_linear": True})
    else:
        names = modules if isinstance(modules, list) else str(modules).split(",")
        imported.place(given_modules, {"lora_target_modules": names})


def _place_dataset(flags: Flags, imported: Imported) -> None:
    name, given_name = flags.take("dataset", "instructions.jsonl")
    kind, given = flags.take("dataset_format", _HUB_DATASETS[name][0] if name in _HUB_DATASETS else "airoboros")
    if kind not in _TYPES:
        raise ConfigError(Problem("--dataset_format", str(kind), f"must be one of {', '.join(_TYPES)}"))
    rows, given_rows = flags.take("max_train_samples")
    where = _HUB_DATASETS[name][1] if name in _HUB_DATASETS else {"path": name}
    entry = {**where, "type": _TYPES[kind]} | ({} if rows is None else {"split": f"train[:{rows}]"})
    shown = ", ".join([given_name, given, *([] if rows is None else [given_rows])])
    imported.place(shown, {"datasets": [entry]}, _AT_RANDOM)
    purge, given_purge = flags.take("skip_excess_length", True)
    imported.place(given_purge, {"excess_length_strategy": "drop" if purge else "truncate"})


_AT_RANDOM = (
    "evaluation rows are drawn at random, not by category; to keep the shares of the categories write those rows to a "
    "file and name it under `test_datasets`"
)


def _place_numbers(flags: Flags, imported: Imported) -> None:
    bf16, given_bf16 = flags.take("bf16", False)
    fp16, given_fp16 = flags.take("fp16", False)
    if bf16 or fp16:
        imported.place(given_bf16 if bf16 else given_fp16, {"bf16" if bf16 else "fp16": True})
    else:
        imported.place("neither --bf16 nor --fp16", {"float32": True})
    tf32, given = flags.take("tf32", True)
    imported.place(given, {"tf32": tf32})
    flash, given = flags.take("use_flash_attention_2", False)
    if flash:
        imported.place(given, {"attn_implementation": "flash_attention_2"})


_NEAREST = dict.fromkeys(("nadam", "radam"), "adamw_torch_fused")
"""Optimizers of torch that the program takes and ftl does not."""


def _place_schedule(flags: Flags, imported: Imported) -> None:
    optimizer, given = flags.take("optim", "paged_adamw_32bit")
    is_small, given_small = flags.take("adam8bit", False)
    name = str(optimizer)
    if is_small or name not in _NEAREST:
        imported.place(given_small if is_small else given, {"optimizer": "adamw_bnb_8bit" if is_small else optimizer})
    else:
        why = f"{name} is not built; AdamW is the nearest, without its correction of the first steps"
        imported.place(given, {"optimizer": _NEAREST[name]}, why)
    scheduler, given = flags.take("lr_scheduler_type", "constant")
    imported.place(given, {"lr_scheduler": scheduler})
    steps, given_steps = flags.take("warmup_steps")
    ratio, given_ratio = flags.take("warmup_ratio", 0.03)
    if scheduler == "constant":
        imported.drop(given_steps if steps else given_ratio, "the schedule constant has no warmup, there as here")
    elif steps:
        imported.place(given_steps, {"warmup_steps": steps}, "wins over warmup_ratio")
    else:
        imported.place(given_ratio, {"warmup_ratio": ratio})


def _place_output(flags: Flags, imported: Imported) -> None:
    """Intervals and places. Checkpoints live with the run, so that only the finished model needs a directory."""
    places = [(flag, *flags.take(flag)) for flag in ("final_output_dir", "output_dir", "working_dir")]
    named = [(flag, value, given) for flag, value, given in places if value is not None]
    _, value, given = named[0] if named else ("", "./output", "output_dir = ./output, its default")
    imported.place(given, {"output_dir": value})
    for _, _, other in named[1:]:
        imported.drop(other, "checkpoints are kept with the run")
    if imported.config["save_strategy"] == "steps":
        flags.copy("save_steps", "save_steps", 250, imported)
    when, given = flags.take("evaluation_strategy")
    newer, given_newer = flags.take("eval_strategy", "no")
    strategy = newer if when is None else when
    imported.place(given_newer if when is None else given, {"eval_strategy": strategy})
    if strategy == "steps":
        flags.copy("eval_steps", "eval_steps", imported.config["logging_steps"], imported)
    tracker, given = flags.take("report_to", "none")
    trackers = {"wandb": "use_wandb", "tensorboard": "use_tensorboard", "mlflow": "use_mlflow"}
    if tracker in trackers:
        imported.place(given, {trackers[tracker]: True})
    elif tracker != "none":
        imported.drop(given, "a tracker that ftl does not know")
