"""jondurbin/qlora: a `train.py` command line as a config. Its own defaults are written out where ftl's differ."""

from typing import Any

from ftl.errors import ConfigError, Problem
from ftl.importers.commandline import parse_command
from ftl.importers.machines import place_machines
from ftl.importers.sheet import FlagSheet, Imported

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
    "merged_output_dir": "merging the adapter into the base at the end is not built yet",
    "source_max_len": "it belongs to the program's ancestor; model_max_len bounds the whole row",
    "target_max_len": "it belongs to the program's ancestor; model_max_len bounds the whole row",
    "expand_conversations": "a row for each answer is not built; write such rows into the file",
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
    command = parse_command(text, ("train.py", "qlora.py"))
    sheet = FlagSheet(command)
    base, given = sheet.take("model_name_or_path", "meta-llama/Llama-2-7b")
    sheet.place(given, {"base_model": base})
    _place_tokens(sheet)
    _place_weights(sheet)
    _place_dataset(sheet)
    for flag, (key, default) in _COPIED.items():
        sheet.copy(flag, key, default)
    _place_numbers(sheet)
    _place_schedule(sheet)
    _place_output(sheet)
    sheet.drop_rest(_DROPPED)
    place_machines(command, sheet)
    return sheet


def _place_tokens(sheet: FlagSheet) -> None:
    for role in ("bos_token", "eos_token", "unk_token", "pad_token"):
        token, given = sheet.take(role)
        if token is not None:
            sheet.place(given, {"special_tokens": {**sheet.config.get("special_tokens", {}), role: token}})


def _place_weights(sheet: FlagSheet) -> None:
    """What is trained, and in how many bits the base is held."""
    is_full, given_full = sheet.take("full_finetune", False)
    bits, given = sheet.take("bits", 4)
    double, given_double = sheet.take("double_quant", True)
    kind, given_kind = sheet.take("quant_type", "nf4")
    if bits not in (4, 8, 16, 32) or (is_full and bits < 16):
        allowed = "must be 16 or 32 with --full_finetune" if is_full else "must be 4, 8, 16 or 32"
        raise ConfigError(Problem("--bits", str(bits), allowed))
    if is_full:
        sheet.drop(given_full, "a config without `adapter` trains all weights")
    if is_full or bits > 8:
        sheet.drop(given, "the base is loaded unquantised")
    else:
        sheet.place(given, {"load_in_4bit": True} if bits == 4 else {"load_in_8bit": True})
    if bits == 4:
        settings = {"bnb_4bit_use_double_quant": double, "bnb_4bit_quant_type": kind}
        sheet.place(f"{given_double}, {given_kind}", {"bnb_config_kwargs": settings})
    _place_adapter(sheet, "" if is_full else "qlora" if bits == 4 else "lora")


def _place_adapter(sheet: FlagSheet, adapter: str) -> None:
    keys = (("lora_r", 64), ("lora_alpha", 16), ("lora_dropout", 0.0))
    modules, given_modules = sheet.take("lora_modules", "all")
    if not adapter:
        for flag, _ in keys:
            value, given = sheet.take(flag)
            if value is not None:
                sheet.drop(given, "there is no adapter")
        return
    sheet.place("no --full_finetune", {"adapter": adapter})
    for flag, default in keys:
        sheet.copy(flag, flag, default)
    if modules == "all":
        sheet.place(given_modules, {"lora_target_linear": True})
    else:
        names = modules if isinstance(modules, list) else str(modules).split(",")
        sheet.place(given_modules, {"lora_target_modules": names})


def _place_dataset(sheet: FlagSheet) -> None:
    name, given_name = sheet.take("dataset", "instructions.jsonl")
    kind, given = sheet.take("dataset_format", _HUB_DATASETS[name][0] if name in _HUB_DATASETS else "airoboros")
    if kind not in _TYPES:
        raise ConfigError(Problem("--dataset_format", str(kind), f"must be one of {', '.join(_TYPES)}"))
    rows, given_rows = sheet.take("max_train_samples")
    where = _HUB_DATASETS[name][1] if name in _HUB_DATASETS else {"path": name}
    entry = {**where, "type": _TYPES[kind]} | ({} if rows is None else {"split": f"train[:{rows}]"})
    shown = ", ".join([given_name, given, *([] if rows is None else [given_rows])])
    sheet.place(shown, {"datasets": [entry]}, "evaluation rows are drawn at random, not by category")
    purge, given_purge = sheet.take("skip_excess_length", True)
    sheet.place(given_purge, {"excess_length_strategy": "drop" if purge else "truncate"})


def _place_numbers(sheet: FlagSheet) -> None:
    bf16, given_bf16 = sheet.take("bf16", False)
    fp16, given_fp16 = sheet.take("fp16", False)
    if bf16 or fp16:
        sheet.place(given_bf16 if bf16 else given_fp16, {"bf16" if bf16 else "fp16": True})
    else:
        sheet.place("neither --bf16 nor --fp16", {"float32": True})
    tf32, given = sheet.take("tf32", True)
    sheet.place(given, {"tf32": tf32})
    flash, given = sheet.take("use_flash_attention_2", False)
    if flash:
        sheet.place(given, {"attn_implementation": "flash_attention_2"})


def _place_schedule(sheet: FlagSheet) -> None:
    optimizer, given = sheet.take("optim", "paged_adamw_32bit")
    is_small, given_small = sheet.take("adam8bit", False)
    sheet.place(given_small if is_small else given, {"optimizer": "adamw_bnb_8bit" if is_small else optimizer})
    scheduler, given = sheet.take("lr_scheduler_type", "constant")
    sheet.place(given, {"lr_scheduler": scheduler})
    steps, given_steps = sheet.take("warmup_steps")
    ratio, given_ratio = sheet.take("warmup_ratio", 0.03)
    if scheduler == "constant":
        sheet.drop(given_steps if steps else given_ratio, "the schedule constant has no warmup, there as here")
    elif steps:
        sheet.place(given_steps, {"warmup_steps": steps}, "wins over warmup_ratio")
    else:
        sheet.place(given_ratio, {"warmup_ratio": ratio})


def _place_output(sheet: FlagSheet) -> None:
    """Intervals and places. Checkpoints live with the run, so that only the finished model needs a directory."""
    places = [(flag, *sheet.take(flag)) for flag in ("final_output_dir", "output_dir", "working_dir")]
    named = [(flag, value, given) for flag, value, given in places if value is not None]
    _, value, given = named[0] if named else ("", "./output", "output_dir = ./output, its default")
    sheet.place(given, {"output_dir": value})
    for _, _, other in named[1:]:
        sheet.drop(other, "checkpoints are kept with the run")
    if sheet.config["save_strategy"] == "steps":
        sheet.copy("save_steps", "save_steps", 250)
    when, given = sheet.take("evaluation_strategy")
    newer, given_newer = sheet.take("eval_strategy", "no")
    strategy = newer if when is None else when
    sheet.place(given_newer if when is None else given, {"eval_strategy": strategy})
    if strategy == "steps":
        sheet.copy("eval_steps", "eval_steps", sheet.config["logging_steps"])
    tracker, given = sheet.take("report_to", "none")
    trackers = {"wandb": "use_wandb", "tensorboard": "use_tensorboard", "mlflow": "use_mlflow"}
    if tracker in trackers:
        sheet.place(given, {trackers[tracker]: True})
    elif tracker != "none":
        sheet.drop(given, "a tracker that ftl does not know")
