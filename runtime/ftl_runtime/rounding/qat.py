"""Training with rounded weights: the forward pass sees what few bits will leave, gradients go past the rounding.

Weights are trained and saved in their own format, under their own names; `ftl quantize` rounds them for good.
"""

from typing import Any

from torch import nn
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftl.config.rounding import Qat


def prepare(model: PreTrainedModel, qat: Qat) -> None:
    """Have linear layers, and the embeddings where asked for, round in their forward pass.

    Parameters stay the same objects. Raises ConfigError where the scheme does not fit the model.
    """
    from torchao.quantization import quantize_
    from torchao.quantization.qat import Float8FakeQuantizeConfig, QATConfig

    from ftl_runtime.rounding.scheme import embedding_of, of_embedding, of_layers, rounded_layers

    names = set(rounded_layers(model, qat, "qat"))
    if qat.weight_dtype == "fp8" and qat.activation_dtype is None:
        layers = QATConfig(weight_config=Float8FakeQuantizeConfig(), step="prepare")
    else:
        layers = QATConfig(of_layers(qat), step="prepare")
    quantize_(model, layers, filter_fn=lambda part, name: name in names)
    if qat.quantize_embedding:
        embedding = embedding_of(model)
        quantize_(model, QATConfig(of_embedding(qat), step="prepare"), filter_fn=lambda part, name: part is embedding)


class Delay(TrainerCallback):
    """Rounds from a step on, counted from 0, and not before: what a step does depends on its number alone."""

    def __init__(self, model: nn.Module, first_step: int) -> None:
        self._quantizers: list[Any] = [  # Any: torchao's fake quantizers, of several classes
            part for part in model.modules() if type(part).__name__.endswith("FakeQuantizer")
        ]
        self._first_step = first_step
        self._round(from_step=0)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:  # Any: the Trainer passes its parts
        self._round(from_step=state.global_step)

    def _round(self, *, from_step: int) -> None:
        for quantizer in self._quantizers:
            quantizer.enabled = from_step >= self._first_step
