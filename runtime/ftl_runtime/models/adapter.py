"""Low-rank adapters on top of a base model, by peft."""

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from peft import LoraConfig, PeftModel, TaskType, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import load_peft_weights
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from ftl.config.adapter import CHANGES_BASE, LoraSection
from ftl.config.model import ModelSection
from ftl.errors import ConfigError
from ftl_runtime.context import Context
from ftl_runtime.models.linear import linear_layers
from ftl_runtime.models.loftq import start_from_loss
from ftl_runtime.models.processor import language_names
from ftl_runtime.objectives import Head
from ftl_runtime.patches import peft_moe_targets

_TASKS: dict[Head, TaskType] = {
    "lm": TaskType.CAUSAL_LM,
    "pictures": TaskType.CAUSAL_LM,
    "sequence": TaskType.SEQ_CLS,
    "token": TaskType.TOKEN_CLS,
}
"""For peft, which trains a head for classes in full."""
_WEIGHTS, _CONFIG = "adapter_model.safetensors", "adapter_config.json"


def add_adapter(
    model: PreTrainedModel,
    adapter: LoraSection | None,
    ctx: Context,
    *,
    base: ModelSection,
    head: Head = "lm",
    checkpoint: Path | None = None,
    spares_encoders: bool = False,
) -> PreTrainedModel | PeftModel:
    """The model with a trainable adapter, drawn from torch's random state; then as in `checkpoint`, or as in the
    adapter to go on from.

    `spares_encoders`: only the language model gets one, unless a regular expression says where. Without an adapter
    section the model itself. Trained weights are in fp32. Raises ConfigError where the adapter does not fit the model.
    """
    if adapter is None:
        return model
    peft_moe_targets.apply()
    source = None if adapter.initial is None else adapter_directory(adapter.initial, ctx)
    lora = _config(model, adapter) if source is None else _config_of(source, adapter)
    lora.task_type = _TASKS[head]
    if spares_encoders and source is None:
        lora.target_modules = _of_language(model, lora.target_modules)  # type: ignore[assignment]  # peft makes it a set
    try:
        adapted: PeftModel = get_peft_model(model, lora)
    except (ValueError, TypeError, RuntimeError) as error:
        key = "lora_target_modules" if "arget modules" in str(error) else "adapter"
        raise ConfigError(f"{key}: {_first_line(error)}") from error
    if adapter.init_weights == "loftq":
        start_from_loss(adapted, ctx.resolve_model(base.base), base.revision)
    if _start_is_needed(adapter) and ctx.device.is_main:
        save_file(_matrices(adapted), _start_file(ctx))
    if checkpoint is not None:
        _load(adapted, checkpoint)
    elif source is not None:
        _load(adapted, source)
    for parameter in adapted.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.float()  # modules_to_save are copies in the format of the base
    return adapted


def adapter_directory(reference: str, ctx: Context) -> Path:
    """Where the adapter to go on from is; one of the Hub is fetched."""
    source = ctx.resolve_model(reference)
    if not Path(source).is_dir():
        try:
            source = snapshot_download(source, allow_patterns=[_WEIGHTS, _CONFIG])
        except (OSError, ValueError) as error:
            raise ConfigError(f"lora_model_dir: no adapter is to be had from {source}: {_first_line(error)}") from error
    missing = [name for name in (_CONFIG, _WEIGHTS) if not (Path(source) / name).is_file()]
    if missing:
        raise ConfigError(f"lora_model_dir: {source}: has no {missing[0]}, so it is not an adapter")
    return Path(source)


def settle_on_base(adapter: LoraSection, directory: Path, ctx: Context) -> None:
    """Turn the adapter that was saved in `directory` into one for the base as it was before `add_adapter`.

    PiSSA and OLoRA take B0 A0 out of the base's weights W and train BA in its place: W - B0 A0 + BA. That is W plus an
    adapter of twice the rank, [B, -B0] [A; A0]. Source: arXiv 2404.02948, appendix on converting to LoRA.
    """
    if not _start_is_needed(adapter):
        return
    start, trained = load_file(_start_file(ctx)), load_file(directory / _WEIGHTS)
    for name, first in start.items():
        assert name in trained, f"{name} was there at the start"
        pair = (trained[name], first) if "lora_A" in name else (trained[name], -first)
        trained[name] = torch.cat(pair, dim=0 if "lora_A" in name else 1)
    save_file(trained, directory / _WEIGHTS, metadata={"format": "pt"})
    config = json.loads((directory / _CONFIG).read_text())
    config |= {"r": 2 * config["r"], "init_lora_weights": True}
    config["lora_alpha"] *= math.sqrt(2) if config["use_rslora"] else 2  # the scale stays what it was
    (directory / _CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True))


def check_new_tokens(new: list[str], model: PreTrainedModel, adapter: LoraSection | None) -> None:
    """Raises ConfigError when tokens were added whose embeddings an adapter would leave as they were drawn."""
    if adapter is None or not new:
        return
    head = model.get_output_embeddings()  # type: ignore[no-untyped-call]
    parts = (model.get_input_embeddings(), None if model.config.tie_word_embeddings else head)
    names = [name.rpartition(".")[2] for name, part in model.named_modules() if any(part is item for item in parts)]
    if set(names) <= {name.rpartition(".")[2] for name in adapter.modules_to_save}:
        return
    raise ConfigError(
        f"lora_modules_to_save: must name the embeddings: {', '.join(new)} would be new, and an adapter leaves them "
        f"random; write lora_modules_to_save: [{', '.join(names)}]"
    )


def _config(model: PreTrainedModel, adapter: LoraSection) -> LoraConfig:
    init = adapter.init_weights
    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]  # declared int, used as a factor
        lora_dropout=adapter.dropout,
        target_modules=_targets(model, adapter),
        target_parameters=list(adapter.target_parameters) or None,
        layers_to_transform=list(adapter.layers_to_transform) or None,
        layers_pattern=list(adapter.layers_pattern) or None,
        modules_to_save=list(adapter.modules_to_save) or None,
        use_dora=adapter.use_dora,
        use_rslora=adapter.use_rslora,
        init_lora_weights=True if init == "loftq" else init,  # type: ignore[arg-type]  # a name that the schema checked
        ensure_weight_tying=bool(adapter.modules_to_save and model.config.tie_word_embeddings),
    )


def _targets(model: PreTrainedModel, adapter: LoraSection) -> str | list[str]:
    named = adapter.target_modules
    if isinstance(named, str):
        return named
    if not adapter.target_linear and (named is not None or adapter.target_parameters):
        return list(named or ())
    linear = linear_layers(model)
    if adapter.layers_to_transform:  # peft looks at the layer's number only where the name is not the whole one
        linear = sorted({name.rpartition(".")[2] for name in linear})
    return [*linear, *(named or ())]


def _of_language(model: PreTrainedModel, targets: Collection[str] | str | None) -> Collection[str] | str | None:
    """The full names of the targets in the language model; peft takes a name for all modules that end with it."""
    if targets is None or isinstance(targets, str):
        return targets
    names = language_names(model, (name for name, _ in model.named_modules() if name))
    return [name for name in names if any(name == target or name.endswith(f".{target}") for target in targets)]


def _config_of(directory: Path, adapter: LoraSection) -> LoraConfig:
    """What the adapter in `directory` says of itself, checked against the keys that are not at their defaults."""
    found = LoraConfig.from_pretrained(str(directory))
    if not isinstance(found, LoraConfig):
        raise ConfigError(f"lora_model_dir: {directory}: is a {found.peft_type} adapter; ftl trains LoRA")
    defaults = {name: field.default for name, field in LoraSection.model_fields.items()}
    pairs: Mapping[str, tuple[str, object, object]] = {
        "rank": ("lora_r", adapter.rank, found.r),
        "alpha": ("lora_alpha", adapter.alpha, found.lora_alpha),
        "use_dora": ("peft_use_dora", adapter.use_dora, found.use_dora),
        "use_rslora": ("peft_use_rslora", adapter.use_rslora, found.use_rslora),
    }
    for name, (key, wanted, own) in pairs.items():
        if wanted not in (own, defaults[name]):
            raise ConfigError(f"{key} = {wanted}: the adapter of lora_model_dir has {own}; remove the key")
    found.inference_mode = False
    found.lora_dropout = adapter.dropout
    found.init_lora_weights = True
    return found


def _load(model: PeftModel, directory: Path) -> None:
    """Put the adapter that was saved in `directory` into the model's. Raises ConfigError unless it fits exactly."""
    weights = load_peft_weights(str(directory), device="cpu")
    expected = {name: tuple(value.shape) for name, value in get_peft_model_state_dict(model).items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    if wrong := sorted(name for name in {*expected, *given} if expected.get(name) != given.get(name)):
        shown = f"{wrong[0]} is {given.get(wrong[0], 'missing')}, and this model has {expected.get(wrong[0], 'none')}"
        raise ConfigError(f"lora_model_dir: {directory}: does not fit the base and the keys of the adapter: {shown}")
    set_peft_model_state_dict(model, weights)


def _start_is_needed(adapter: LoraSection) -> bool:
    return str(adapter.init_weights).startswith(CHANGES_BASE)


def _start_file(ctx: Context) -> Path:
    return ctx.run_dir / "adapter-start.safetensors"


def _matrices(model: PeftModel) -> dict[str, Tensor]:
    """The low-rank matrices by the names they are saved under."""
    state = get_peft_model_state_dict(model)
    return {name: value.detach().cpu().contiguous() for name, value in state.items() if "lora_" in name}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
