"""LISA: a few layers at a time are trained, drawn anew every so many steps. Source: arXiv 2403.17919."""

import random
from operator import attrgetter
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftl.config.trained import TrainedSection
from ftl.errors import ConfigError


class Lisa(TrainerCallback):
    """Freezes all layers of the model but those drawn for the step; what is in no layer is trained all the time.

    The draw depends on seed and step alone, so a resumed training draws the same. A layer that is put away forgets its
    optimizer states: the memory of a step is that of the layers in use.
    """

    def __init__(self, model: nn.Module, trained: TrainedSection, *, seed: int) -> None:
        """Raises ConfigError when the model has not so many layers."""
        assert trained.lisa_num_layers is not None
        self._layers = _layers(model, trained.lisa_layers)
        self._count = trained.lisa_num_layers
        self._interval = trained.lisa_interval_steps
        self._seed = seed
        self._period: int | None = None
        if self._count > len(self._layers):
            raise ConfigError(f"lisa_n_layers: {self._count}: the model has {len(self._layers)} layers")

    def drawn(self, step: int) -> list[int]:
        """Numbers of the layers that `step`, counted from 0, trains."""
        generator = random.Random(f"{self._seed}-{step // self._interval}")
        return sorted(generator.sample(range(len(self._layers)), self._count))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:  # Any: the Trainer passes its parts
        period = state.global_step // self._interval
        if period == self._period:
            return
        self._period = period
        chosen = self.drawn(state.global_step)
        states = kwargs["optimizer"].state
        for number, layer in enumerate(self._layers):
            for parameter in layer.parameters():
                parameter.requires_grad_(number in chosen)
                if number not in chosen:
                    parameter.grad = None
                    states.pop(parameter, None)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:  # Any: as above
        for parameter in self._layers.parameters():
            parameter.requires_grad_(True)


def _layers(model: nn.Module, attribute: str | None) -> nn.ModuleList:
    if attribute is None:
        return max((part for part in model.modules() if isinstance(part, nn.ModuleList)), key=len)
    try:
        found = attrgetter(attribute)(model)
    except AttributeError as error:
        raise ConfigError(f"lisa_layers_attribute: {attribute}: {error}") from error
    if not isinstance(found, nn.ModuleList):
        raise ConfigError(f"lisa_layers_attribute: {attribute}: is a {type(found).__name__}, not a list of layers")
    return found
