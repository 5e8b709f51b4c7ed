"""The base model: from a directory or the Hub, or drawn fresh from a config."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BitsAndBytesConfig,
    GPTQConfig,
    PreTrainedConfig,
    PreTrainedModel,
    TorchAoConfig,
)

from ftl.config.model import Attention, ModelSection
from ftl.config.precision import PrecisionSection
from ftl.config.train import TrainConfig
from ftl.errors import ConfigError
from ftl_runtime.context import Context
from ftl_runtime.models.overrides import override
from ftl_runtime.models.quantize import check_quantisable, keep_layout, quantising_on
from ftl_runtime.objectives import OBJECTIVES, Head
from ftl_runtime.patches import falcon_linear

_AUTO = "AutoModelForCausalLM"
_LOADERS: dict[Head, tuple[Any, Any]] = {  # Any: transformers' loaders and tables, which have no type in common
    "lm": (AutoModelForCausalLM, MODEL_FOR_CAUSAL_LM_MAPPING),
    "pictures": (AutoModelForImageTextToText, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING),
    "sequence": (AutoModelForSequenceClassification, MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING),
    "token": (AutoModelForTokenClassification, MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING),
}
_CLASS_HEADS = ("score.", "classifier.")
"""What heads for classes are called: a base that was trained to write text has none."""


def head_of(cfg: TrainConfig) -> Head:
    """What the model of a training ends in."""
    return OBJECTIVES[cfg.objective.kind].head if cfg.data.processor is None else "pictures"


def load_config(
    model: ModelSection, ctx: Context, *, head: Head = "lm", num_classes: int | None = None
) -> PreTrainedConfig:
    """The model's config.json with the user's changes, and the class that `model_type` names checked against it; of a
    model with a head for so many classes where `num_classes` is given."""
    key = "base_model_config" if model.config_source else "base_model"
    source = ctx.resolve_model(model.config_source or model.base)
    try:
        config: PreTrainedConfig = _config_class(model.config_class).from_pretrained(
            source, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"{key}: no model config can be loaded from {source}: {first}") from error
    if num_classes is not None:
        config.num_labels = num_classes
    override(config, model.config_overrides)
    known = {*(config.architectures or []), architecture(config, head).__name__}
    if model.class_name not in (_AUTO, _LOADERS[head][0].__name__, *known):
        allowed = " or ".join(sorted(known))
        raise ConfigError(f"model_type: {model.class_name}: this base is a {allowed}; remove the key, or name that")
    return config


def _config_class(name: str) -> Any:  # Any: AutoConfig, or a PreTrainedConfig, has no common base
    found = getattr(transformers, name, None)
    if found is AutoConfig or (isinstance(found, type) and issubclass(found, PreTrainedConfig)):
        return found
    raise ConfigError(f"cls_model_config: {name}: transformers {transformers.__version__} has no such config class")


def architecture(config: PreTrainedConfig, head: Head = "lm") -> type[PreTrainedModel]:
    """The transformers class for the config; the plain base class for models that bring their own code.

    Raises ConfigError where transformers has no such model with a head for classes.
    """
    found = _LOADERS[head][1].get(type(config), PreTrainedModel)
    if head == "pictures" and found is PreTrainedModel:
        raise ConfigError(
            f"processor_type: base_model is a {config.model_type}, which sees no pictures; remove the key, or take "
            "another base"
        )
    if head != "lm" and found is PreTrainedModel and not hasattr(config, "auto_map"):
        allowed = f"transformers has no {_LOADERS[head][0].__name__} for it"
        raise ConfigError(f"base_model: is a {config.model_type}, and {allowed}; take another base")
    return found if isinstance(found, type) else PreTrainedModel


def weights_dtype(precision: PrecisionSection, compute: torch.dtype, *, has_adapter: bool) -> torch.dtype:
    """What the config says; else fp32 for weights that are trained, so that small updates are not lost, and for a
    frozen base what is computed in."""
    if precision.weights is not None:
        return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision.weights]
    return compute if has_adapter else torch.float32


def load_model(
    model: ModelSection,
    config: PreTrainedConfig,
    ctx: Context,
    *,
    dtype: torch.dtype,
    attention: Attention,
    seed: int,
    head: Head = "lm",
    quantisation: BitsAndBytesConfig | GPTQConfig | TorchAoConfig | None = None,
    checkpoint: Path | None = None,
    in_shards: bool = False,
) -> PreTrainedModel:
    """The model with its weights, on the CPU; quantised weights are on the device of this rank, but for those that
    are to be cut up `in_shards`.

    With `checkpoint`, a directory written by a full fine-tune, the weights come from there. Raises ConfigError when
    there are no usable weights.
    """
    torch.manual_seed(seed)  # rows the base lacks, or all of them, are drawn the same in every attempt
    common: dict[str, Any] = {  # Any: keyword arguments of three kinds
        "dtype": dtype,
        "attn_implementation": attention,
        "trust_remote_code": model.trust_remote_code,
    }
    if model.experts is not None:
        common["experts_implementation"] = model.experts
    if model.reinit_weights and checkpoint is None:
        fresh: PreTrainedModel = _LOADERS[head][0].from_config(config, **common)
        return fresh
    source = str(checkpoint) if checkpoint else ctx.resolve_model(model.base)
    _refuse_pickle(Path(source))
    if quantisation is not None:
        common["quantization_config"] = quantisation
    if quantisation is not None or getattr(config, "quantization_config", None) is not None:
        check_quantisable(config)
        falcon_linear.apply()
        common["device_map"] = {"": "cpu"} if in_shards else _device_map(ctx)
    quantising = quantising_on(ctx.device.kind) if in_shards and quantisation is not None else nullcontext()
    try:
        with quantising:
            pair: Any = _LOADERS[head][0].from_pretrained(  # Any: a pair because of output_loading_info
                source,
                config=None if checkpoint else config,
                revision=None if checkpoint else model.revision,
                use_safetensors=True,
                output_loading_info=True,
                **common,
                **{name: value for name, value in model.load_options.items() if name != "use_cache"},
            )
    except (OSError, ValueError, ImportError, KeyError, TypeError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        named = next((name for name in model.load_options if name in first), None)
        key = f"overrides_of_model_kwargs.{named}" if named else "base_model"
        raise ConfigError(f"{key}: {source} cannot be loaded: {first}") from error
    loaded: PreTrainedModel = pair[0]
    _check_loaded(pair[1], ctx, is_checkpoint=checkpoint is not None)
    keep_layout(loaded)
    return loaded


def _device_map(ctx: Context) -> dict[str, int | str]:
    """Everything on the device of this rank: weights are quantised there, and not moved afterwards."""
    return {"": torch.cuda.current_device() if ctx.device.kind == "cuda" else "cpu"}


def _check_loaded(report: dict[str, Any], ctx: Context, *, is_checkpoint: bool) -> None:  # Any: transformers' own
    missing = sorted(str(name) for name in report.get("missing_keys", ()))
    if not is_checkpoint:
        missing = [name for name in missing if not name.startswith(_CLASS_HEADS)]
    if not missing:
        return
    shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    assert not is_checkpoint, f"a checkpoint of ours lacks weights: {shown}"
    ctx.warn(
        f"{len(missing)} weights are not in the base and start random: {shown}; "
        "check that base_model is the one you mean"
    )


def _refuse_pickle(directory: Path) -> None:
    if not directory.is_dir() or any(directory.glob("*.safetensors")):
        return
    if pickles := sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in directory.glob(pattern)):
        raise ConfigError(
            f"base_model: {directory} has only {pickles[0]}, a pickle, which can run any code when it is read; "
            "convert it to safetensors, or take a base that has them"
        )
    raise ConfigError(
        f"base_model: {directory} has a config but no *.safetensors weights; "
        "to start from random weights set reinit_weights: true"
    )
