"""A finished model with its weights in few bits, as transformers loads it."""

import gc
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, TorchAoConfig

from ftl.config.rounding import Scheme
from ftl.config.train import TrainConfig
from ftl.errors import BackendError
from ftl_runtime.checkpoint.volume import storage_errors
from ftl_runtime.context import Context
from ftl_runtime.merge.lora import load_finished, save
from ftl_runtime.models.load import load_model
from ftl_runtime.objectives import OBJECTIVES
from ftl_runtime.output import finish_task, sealed_output

_FP8_CAPABILITY = (8, 9)


def quantize(cfg: TrainConfig, ctx: Context) -> None:
    """Write the model that `cfg` names, rounded as its `quantization` says, to RUN/output, with the tokenizer."""
    scheme = cfg.rounding.quantization
    assert scheme is not None, "the command gives it"
    _check_machine(scheme, ctx)
    model, tokenizer, facts = load_finished(cfg, ctx)
    with storage_errors(ctx.run_dir), tempfile.TemporaryDirectory(dir=ctx.run_dir) as directory:
        whole = Path(directory)
        how = torchao_config(model, scheme)
        save(model, tokenizer, whole)
        config, dtype = model.config, model.dtype
        del model
        gc.collect()  # its cycles would hold the weights while the model is read again
        rounded = load_model(
            cfg.model.model_copy(update={"base": str(whole), "revision": None, "reinit_weights": False}),
            config,
            ctx,
            dtype=dtype,
            attention="eager",
            seed=cfg.optim.seed,
            head=OBJECTIVES[cfg.objective.kind].head,
            quantisation=how,
        )
        ctx.phase("finishing")
        with sealed_output(ctx, step=0) as stage:
            save(rounded, tokenizer, stage)
        activations = f", activations {scheme.activation_dtype}" if scheme.activation_dtype else ""
        finish_task(ctx, facts | {"weights": f"{scheme.weight_dtype}{activations}"})


def torchao_config(model: PreTrainedModel, scheme: Scheme) -> TorchAoConfig:
    """How transformers is to load the model: the layers that training would round, and the embeddings if asked for.

    Raises ConfigError where the scheme does not fit the model.
    """
    from torchao.quantization import FqnToConfig

    from ftl_runtime.rounding.scheme import embedding_of, of_embedding, of_layers, rounded_layers

    layers = of_layers(scheme)
    names = rounded_layers(model, scheme, "quantization")
    if not scheme.quantize_embedding:
        kept = [name for name, part in model.named_modules() if isinstance(part, nn.Linear) and name not in names]
        return TorchAoConfig(layers, modules_to_not_convert=kept)
    embedding = embedding_of(model)
    by_name: dict[str, Any] = dict.fromkeys(names, layers)  # Any: torchao's configs
    by_name |= {name: of_embedding(scheme) for name, part in model.named_modules() if part is embedding}
    return TorchAoConfig(FqnToConfig(by_name), include_input_output_embeddings=True)


def _check_machine(scheme: Scheme, ctx: Context) -> None:
    if scheme.activation_dtype != "fp8":
        return
    if ctx.device.kind == "cpu" or torch.cuda.get_device_capability() < _FP8_CAPABILITY:
        raise BackendError(
            "quantization.activation_dtype: fp8: needs a GPU of compute capability 8.9 (L4, L40S, RTX 4090, H100 and "
            "later); leave it out, and only weights are fp8"
        )
