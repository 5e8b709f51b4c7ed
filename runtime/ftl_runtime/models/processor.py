"""What a model that sees pictures reads them with, and which of its weights do not belong to the language model."""

import shutil
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import transformers
from torch import nn
from transformers import AutoImageProcessor, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.processing_utils import ProcessorMixin

from ftl.config.model import ModelSection
from ftl.errors import BackendError, ConfigError
from ftl_runtime.context import Context
from ftl_runtime.patches import processor_parts

_AUTO = "AutoProcessor"
_FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")


def load_processor(
    name: str, model: ModelSection, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, ctx: Context
) -> Any:  # Any: the processors of transformers have no types
    """The processor of the base, around the tokenizer of the training. Pictures are read by pillow, as they are on any
    machine; videos and sounds are not.

    Raises ConfigError where the base has none, or another one than `name`.
    """
    if find_spec("PIL") is None:
        raise BackendError("processor_type: pictures are read with pillow, which is not installed here")
    processor_parts.apply()
    source = ctx.resolve_model(model.base)
    kind = _kind(name, config)
    try:
        settings, _ = ProcessorMixin.get_processor_dict(source)
        images = AutoImageProcessor.from_pretrained(source, backend="pil")  # type: ignore[no-untyped-call]
        parts = {"image_processor": images, "tokenizer": tokenizer}
        processor = kind.from_args_and_dict([parts.get(part) for part in kind.get_attributes()], settings)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"processor_type: {name}: {source} has no processor that can be read: {first}") from error
    processor.tokenizer.padding_side = "right"
    return processor


def copy_processor(model: ModelSection, directory: Path, ctx: Context) -> None:
    """Put the base's own files about pictures beside a model that was trained from it."""
    source = Path(ctx.resolve_model(model.base))
    for name in _FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, directory / name)


def freeze_encoders(model: nn.Module, base: PreTrainedModel, ctx: Context) -> None:
    """Freeze all weights of `model` that are not of its language model."""
    of_encoders = {id(weight) for _, weight in encoder_weights(base)}
    if not of_encoders:
        ctx.warn("freeze_mm_modules: has no effect on a model that reads texts alone")
    for weight in model.parameters():
        if id(weight) in of_encoders:
            weight.requires_grad_(False)


def encoder_weights(base: PreTrainedModel) -> list[tuple[str, nn.Parameter]]:
    """Name and weight of what reads pictures and sounds, and of what brings them to the language model."""
    language = {id(weight) for part in _language_parts(base) for weight in part.parameters()}
    return [(name, weight) for name, weight in base.named_parameters() if id(weight) not in language]


def language_names(base: PreTrainedModel, names: Iterable[str]) -> list[str]:
    """Those of the modules that are of the language model."""
    inside = {id(module) for part in _language_parts(base) for module in part.modules()}
    return [name for name in names if id(base.get_submodule(name)) in inside]


def _language_parts(base: PreTrainedModel) -> list[nn.Module]:
    parts = (base.get_decoder(), base.get_input_embeddings(), base.get_output_embeddings())  # type: ignore[no-untyped-call]
    return [part for part in parts if isinstance(part, nn.Module)]


def _kind(name: str, config: PreTrainedConfig) -> Any:  # Any: as load_processor
    found = PROCESSOR_MAPPING.get(type(config), None) if name == _AUTO else getattr(transformers, name, None)
    if found is None or not (isinstance(found, type) and issubclass(found, ProcessorMixin)):
        has = f"transformers {transformers.__version__} has no such processor for a {config.model_type}"
        raise ConfigError(f"processor_type: {name}: {has}; write AutoProcessor, or remove the key")
    return found
