"""The base with a trained adapter in its weights: one model, which needs neither peft nor the base any more.

The base is loaded for this alone, and nothing is computed with it before. A layer is merged in fp32 and rounded once,
to the format of the base; the layers come one after another, so that the rest of the model takes what it takes on disk.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer, ParamWrapper
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from ftl.config.adapter import LoraSection
from ftl.config.model import ModelSection
from ftl.config.train import TrainConfig
from ftl.errors import ConfigError
from ftl_runtime.checkpoint.volume import storage_errors
from ftl_runtime.context import Context
from ftl_runtime.models.adapter import adapter_directory, add_adapter
from ftl_runtime.models.hub import on_this_machine
from ftl_runtime.models.load import architecture, head_of, load_config, load_model
from ftl_runtime.models.processor import copy_processor
from ftl_runtime.models.quantize import dense, describe, holds_few_bits, quantisation
from ftl_runtime.models.tokenizer import fit_to_tokenizer, load_tokenizer, view_of
from ftl_runtime.objectives import OBJECTIVES
from ftl_runtime.output import finish_task, sealed_output
from ftl_runtime.train.args import compute_dtype
from ftl_runtime.train.relora import STATE_FILE

SHARD_SIZE = "5GB"
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_TOKENIZER_FILE = "tokenizer_config.json"


def merge(cfg: TrainConfig, ctx: Context) -> None:
    """Write the base with the adapter that `lora_model_dir` names in it to RUN/output, with the tokenizer."""
    model, tokenizer, facts = load_finished(cfg, ctx)
    ctx.phase("finishing")
    with storage_errors(ctx.run_dir):
        with sealed_output(ctx, step=0) as stage:
            save(model, tokenizer, stage)
            if cfg.data.processor is not None:
                copy_processor(on_this_machine(cfg.model, ctx, wanted="tokenizer")[0], stage, ctx)
        finish_task(ctx, facts)


def load_finished(cfg: TrainConfig, ctx: Context) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, dict[str, str]]:
    """The model that a training of `cfg` gave, on the CPU: `base_model`, with the adapter of `lora_model_dir` merged
    into it where there is one. With its tokenizer, and what to tell of it.

    Raises ConfigError for a base or an adapter that cannot be read, or that do not fit each other.
    """
    ctx.phase("model")
    section, revision = on_this_machine(cfg.model, ctx, wanted="all")
    directory = None
    if cfg.adapter is not None and cfg.adapter.initial is not None:
        directory = adapter_directory(cfg.adapter.initial, ctx)
        if (directory / _TOKENIZER_FILE).is_file():
            section = section.model_copy(update={"tokenizer": str(directory)})
    tokenizer = load_tokenizer(section, cfg.data, ctx)
    view_of(tokenizer, cfg.data)  # gives it the config's chat template
    objective = OBJECTIVES[cfg.objective.kind]
    num_classes = cfg.objective.num_labels or objective.num_classes
    config = load_config(section, ctx, head=head_of(cfg), num_classes=num_classes)
    base = _load_dense(cfg, section, config, ctx, has_adapter=directory is not None)
    fit_to_tokenizer(base, tokenizer, section, seed=cfg.optim.seed)
    facts = {"format": str(base.dtype).removeprefix("torch.")}
    if revision is not None:
        facts["base revision"] = revision
    if directory is None:
        return base, tokenizer, facts
    own = LoraSection(kind="lora", initial=str(directory))  # all else stands in its adapter_config.json
    adapted = add_adapter(base, own, ctx, base=section, head=head_of(cfg))
    assert isinstance(adapted, PeftModel), "there is an adapter section"
    num_layers = sum(isinstance(part, LoraLayer) for part in adapted.modules())
    return merged(adapted, directory), tokenizer, {"layers merged": str(num_layers), **facts}


def merged(model: PeftModel, directory: Path) -> PreTrainedModel:
    """The base of `model` with the adapter in it; `model` is of no use afterwards.

    `directory` is where the adapter comes from: a checkpoint of a ReLoRA training has its earlier rounds there.
    Raises ConfigError where the merged weights are no numbers.
    """
    rounds = _earlier_rounds(directory)
    for name, part in model.named_modules():
        if isinstance(part, LoraLayer) and not isinstance(part, ParamWrapper):
            _merge_layer(part, rounds.get(name, []), name)
        elif isinstance(part, ModulesToSaveWrapper):
            part.modules_to_save["default"].to(next(part.original_module.parameters()).dtype)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All adapters are already merged")
        whole: Any = model.merge_and_unload()  # Any: peft calls it a Module
    whole.requires_grad_(False)
    found: PreTrainedModel = whole
    return found


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Write model, generation config and tokenizer as transformers reads them."""
    model.config.use_cache = True
    model.save_pretrained(directory, max_shard_size=SHARD_SIZE)
    tokenizer.save_pretrained(directory)


def _load_dense(
    cfg: TrainConfig, section: ModelSection, config: PreTrainedConfig, ctx: Context, *, has_adapter: bool
) -> PreTrainedModel:
    """The base as the adapter saw it in training, its weights in 16 or 32 bits: what 4 or 8 bits took away stays away,
    for the adapter has learned to make up for it."""
    if has_adapter and str(describe(config)).endswith("(gptq)"):
        raise ConfigError(
            "base_model: an adapter cannot be merged into the weights of a GPTQ base; name the base that was quantised"
        )
    head = head_of(cfg)
    has_sdpa = getattr(architecture(config, head), "_supports_sdpa", False)
    dtype = _DTYPES[cfg.precision.weights] if cfg.precision.weights is not None else _own_dtype(config)
    quantised = None
    if has_adapter:
        quantised = quantisation(config, cfg.quant, compute_dtype(cfg.precision, ctx.device), has_adapter=True)
    model = load_model(
        section,
        config,
        ctx,
        dtype=dtype,
        attention="sdpa" if has_sdpa else "eager",
        seed=cfg.optim.seed,
        head=head,
        quantisation=quantised,
    )
    if has_adapter and getattr(model, "is_quantized", False):
        _hold_dense(model, dtype)
    return model


def _own_dtype(config: PreTrainedConfig) -> torch.dtype:
    """What the base is stored in, as far as its config.json says."""
    own = getattr(config, "dtype", None)
    found = getattr(torch, own, None) if isinstance(own, str) else own
    return found if isinstance(found, torch.dtype) else torch.float32


def _hold_dense(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Replace every layer of few bits by a plain one with the same weights, in main memory."""
    for name, part in list(model.named_modules()):
        if not holds_few_bits(part):
            continue
        weight_OI = dense(part).to("cpu", dtype)
        bias = getattr(part, "bias", None)
        plain = nn.Linear(weight_OI.shape[1], weight_OI.shape[0], bias=bias is not None, device="meta")
        plain.weight = nn.Parameter(weight_OI, requires_grad=False)
        if bias is not None:
            plain.bias = nn.Parameter(bias.detach().to("cpu", dtype), requires_grad=False)
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, plain)
    whole: Any = model  # Any: attributes that transformers sets where it quantises
    whole.hf_quantizer.remove_quantization_config(model)
    for flag in ("is_loaded_in_4bit", "is_loaded_in_8bit"):
        if hasattr(whole, flag):
            setattr(whole, flag, False)
    whole.to("cpu")


def _merge_layer(layer: Any, rounds: list[tuple[Tensor, Tensor]], name: str) -> None:  # Any: peft's layers
    base = layer.get_base_layer()
    dtype = base.weight.dtype
    base.float()
    with torch.no_grad():
        for a, b in rounds:
            base.weight += layer.scaling["default"] * (b.float() @ a.float())
    try:
        layer.merge(safe_merge=True)
    except ValueError as error:
        raise ConfigError(f"lora_model_dir: {name} merged into the base: {error}") from error
    base.to(dtype)


def _earlier_rounds(directory: Path) -> dict[str, list[tuple[Tensor, Tensor]]]:
    """Layer -> A and B of each round that a ReLoRA checkpoint has behind it, the first one first."""
    if not (directory / STATE_FILE).is_file():
        return {}
    stored = load_file(directory / STATE_FILE)
    found: dict[str, dict[int, tuple[Tensor, Tensor]]] = {}
    for key in stored:
        number, _, rest = key.partition(".")
        name, _, letter = rest.rpartition(".")
        if letter == "A":
            found.setdefault(name, {})[int(number)] = (stored[key], stored[f"{number}.{name}.B"])
    return {name: [rounds[number] for number in sorted(rounds)] for name, rounds in found.items()}
