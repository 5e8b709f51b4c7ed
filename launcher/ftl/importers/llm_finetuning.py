"""taprosoft/llm_finetuning: a `finetune.py` command line as a config. What the program fixes is written out too."""

from pathlib import Path, PurePosixPath
from typing import Any

from ftl.errors import ConfigError, Problem
from ftl.importers.commandline import parse_command
from ftl.importers.machines import num_processes, place_machines
from ftl.importers.sheet import Flags, Imported

_COPIED: dict[str, tuple[str, Any]] = {  # Any: what YAML holds
    "output_dir": ("output_dir", "./lora-alpaca"),
    "num_epochs": ("num_epochs", 3),
    "learning_rate": ("learning_rate", 3e-4),
    "cutoff_len": ("sequence_len", 256),
    "train_on_inputs": ("train_on_inputs", True),
    "group_by_length": ("group_by_length", False),
    "lora_r": ("lora_r", 8),
    "lora_alpha": ("lora_alpha", 16),
    "lora_dropout": ("lora_dropout", 0.05),
    "lora_target_modules": ("lora_target_modules", ["q_proj", "v_proj"]),
    "gradient_checkpointing": ("gradient_checkpointing", False),
    "save_steps": ("save_steps", 10),
    "logging_steps": ("logging_steps", 10),
    "wandb_project": ("wandb_project", None),
    "wandb_run_name": ("wandb_name", None),
    "wandb_watch": ("wandb_watch", None),
    "wandb_log_model": ("wandb_log_model", None),
}
"""Flag -> the key with the same value, and the default of that program where it has one."""

_FIXED: dict[str, Any] = {  # Any: what YAML holds
    "lr_scheduler": "linear",
    "warmup_steps": 100,
    "fp16": True,
    "save_total_limit": 3,
    "excess_length_strategy": "truncate",
}
_DROPPED = {
    "add_eos_token": "an answer always ends with EOS, and EOS is trained",
    "gptq_groupsize": "a GPTQ base says itself how it was quantised",
    "gptq_backend": "there is one kernel for GPTQ bases",
}
_OTHER_SCRIPTS = {
    "inference.py": "writes answers with a trained adapter: not built yet; `ftl pull ID` copies the model to this "
    "machine, for vLLM or transformers to run",
    "merge_lora_checkpoint.py": "merges an adapter into its base: `ftl merge-lora CFG` does it",
    "download_model.py": "needs no counterpart: `base_model` takes the name of a Hub model, and a run fetches it once; "
    "`hf download NAME` makes a copy of your own",
    "convert_hf_dataset.py": "needs no counterpart: `datasets` takes the name of a Hub dataset",
}
"""Scripts of the program that train nothing, and what is done in their place."""
_TEMPLATES: dict[str, dict[str, Any]] = {  # Any: what YAML holds
    **{name: {"type": name} for name in ("alpaca", "alpaca_legacy", "alpaca_short", "vicuna")},
    "sharegpt": {
        "type": "chat_template",
        "field_messages": "conversations",
        "message_property_mappings": {"role": "from", "content": "value"},
    },
}
_DEFAULT_TEMPLATE = "vicuna"


def import_llm_finetuning(text: str) -> Imported:
    """The command line in `text` as a config and, where it says how many GPUs, a cloud file.

    Raises ConfigError when it starts no training of that program, or asks for what the program itself refuses.
    """
    command = parse_command(text, ("finetune.py",), _OTHER_SCRIPTS)
    flags, imported = Flags(command), Imported()
    base, given = flags.take("base_model")
    if base is None:
        raise ConfigError(Problem("--base_model", allowed="is missing; the program needs it"))
    imported.place(given, {"base_model": base})
    _place_mode(flags, imported)
    _place_dataset(flags, imported)
    for flag, (key, default) in _COPIED.items():
        flags.copy(flag, key, default, imported)
    _place_batch(flags, imported, num_processes(command))
    _place_rest(flags, imported)
    imported.place("fixed in the program", _FIXED)
    flags.drop_rest(_DROPPED, imported)
    place_machines(command, imported)
    return imported


def _place_mode(flags: Flags, imported: Imported) -> None:
    """How the base is held, and the optimizer that goes with it."""
    mode, given = flags.take("mode", 8)
    modes: dict[Any, dict[str, Any]] = {  # Any: what YAML holds
        4: {
            "adapter": "qlora",
            "load_in_4bit": True,
            "bnb_config_kwargs": {"bnb_4bit_use_double_quant": True, "bnb_4bit_quant_type": "nf4"},
        },
        8: {"adapter": "lora", "load_in_8bit": True, "bnb_config_kwargs": {"llm_int8_threshold": 0.0}},
        16: {"adapter": "lora"},
        "gptq": {"adapter": "lora", "gptq": True},
    }
    if mode not in modes:
        raise ConfigError(Problem("--mode", str(mode), "must be 4, 8, 16 or gptq"))
    imported.place(given, modes[mode])
    imported.place("fixed by the mode", {"optimizer": "paged_adamw_8bit" if mode in (4, 8) else "adamw_torch"})


def _place_dataset(flags: Flags, imported: Imported) -> None:
    path, given = flags.take("data_path", "yahma/alpaca-cleaned")
    path = str(path)
    template, given_template = flags.take("prompt_template_name", _DEFAULT_TEMPLATE)
    size, given_size = flags.take("val_set_size", 2000)
    is_text = path.endswith(".txt")
    if is_text:
        imported.drop(given_template, "a text file has no prompt")
    elif template not in _TEMPLATES:
        raise ConfigError(Problem("--prompt_template_name", str(template), f"must be one of {', '.join(_TEMPLATES)}"))
    kind = {"type": "completion"} if is_text else _TEMPLATES[template]
    why = _NO_OVERLAP if is_text else ""
    why = "turns are put into the tokenizer's own chat template" if template == "sharegpt" else why
    is_folder = not is_text and not path.endswith((".json", ".jsonl")) and _is_local(path)
    train = str(PurePosixPath(path) / "train.json") if is_folder else path
    imported.place(f"{given}, {given_template}", {"datasets": [{"path": train, **kind}]}, why)
    if size:
        imported.place(given_size, {"val_set_size": size})
        if is_folder and (Path(path) / "test.json").is_file():
            imported.drop(f"{path}/test.json", "rows of train.json are evaluated on; for it add --val_set_size 0")
    elif is_folder:
        test = {"path": str(PurePosixPath(path) / "test.json"), **kind}
        imported.place(given_size, {"test_datasets": [test]}, "its own file is then evaluated on")
    else:
        test = {"path": path, **kind, "split": "test"}
        imported.place(given_size, {"test_datasets": [test]}, "its own split is then evaluated on")


_NO_OVERLAP = (
    "chunks of the text follow one another, and no text is lost; there they overlapped by half: "
    "to train it all twice set num_epochs to twice as much"
)


def _is_local(path: str) -> bool:
    """Whether it is a folder here, or looks like one: a Hub id has one slash and no dot or slash before it."""
    return Path(path).is_dir() or path.startswith((".", "/", "~")) or path.count("/") != 1


def _place_batch(flags: Flags, imported: Imported, num_ranks: int) -> None:
    whole, given = flags.take("batch_size", 128)
    micro, given_micro = flags.take("micro_batch_size", 4)
    if not isinstance(whole, int) or not isinstance(micro, int) or micro < 1 or whole < micro * num_ranks:
        allowed = f"must be whole numbers, batch_size at least micro_batch_size x {num_ranks} processes"
        raise ConfigError(Problem("--batch_size, --micro_batch_size", f"{whole}, {micro}", allowed))
    at_once = micro * num_ranks
    steps = whole // at_once
    why = f"{whole} / {micro} / {num_ranks} processes"
    if whole % at_once:
        allowed = f"{why} is {whole / at_once:.4g}: must be whole, as with {steps * at_once} or {(steps + 1) * at_once}"
        raise ConfigError(Problem("--batch_size", str(whole), allowed))
    imported.place(given_micro, {"micro_batch_size": micro, "eval_batch_size": micro})
    imported.place(given, {"gradient_accumulation_steps": steps}, why)


def _place_rest(flags: Flags, imported: Imported) -> None:
    every, given = flags.take("eval_steps", 100)
    if every:
        imported.place(given, {"eval_strategy": "steps", "eval_steps": every})
    else:
        imported.place(given, {"eval_strategy": "no"})
    adapter, given = flags.take("resume_from_checkpoint")
    if adapter is not None:
        imported.place(given, {"lora_model_dir": adapter}, "its checkpoints hold the adapter's weights alone")
    only_evaluates, given = flags.take("eval", False)
    if only_evaluates:
        imported.drop(given, "evaluating without training is not built yet; this config trains")
