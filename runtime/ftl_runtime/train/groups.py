"""Which parameters are trained at which rate, and which of them decay."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from transformers import Trainer

from ftl.config.optim import OptimSection
from ftl.config.rates import RatesSection
from ftl.errors import ConfigError

_LORAPLUS_EMBEDDING_RATE = 1e-6


@dataclass(frozen=True)
class Group:
    """Parameters, by name, that an optimizer treats alike."""

    rate: float
    """The highest of the schedule."""
    weight_decay: float
    parameters: tuple[tuple[str, nn.Parameter], ...]


def parameter_groups(model: nn.Module, optim: OptimSection, rates: RatesSection) -> list[Group]:
    """Every trained parameter in one group; first, where there are any, those at `learning_rate`, which is logged.

    A rate of its own comes from lr_groups, else from embedding_lr, else from LoRA+. Biases and norms do not decay.
    Raises ConfigError when a rate is given for parameters that are not there.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    own = _own_rates(model, [name for name, _ in trained], optim, rates)
    decaying = set(Trainer.get_decay_parameter_names(None, model)) if optim.weight_decay else set()  # type: ignore[arg-type]
    members: dict[tuple[float, float], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in trained:
        rate = own.get(name, optim.learning_rate)
        decay = optim.weight_decay if name in decaying else 0.0
        members.setdefault((rate, decay), []).append((name, parameter))
    groups = [Group(rate, decay, tuple(found)) for (rate, decay), found in members.items()]
    return sorted(groups, key=lambda group: group.rate != optim.learning_rate)


def _own_rates(model: nn.Module, names: list[str], optim: OptimSection, rates: RatesSection) -> dict[str, float]:
    """Name -> rate, for the parameters that have one of their own."""
    found: dict[str, float] = {}
    problems: list[str] = []
    for key, chosen in _choices(model, names, optim, rates):
        if not chosen:
            problems.append(f"{key}: no trained parameter has it; the trained ones are {_some(names)}")
        found = {**chosen, **found}
    if problems:
        raise ConfigError(*problems)
    return found


def _choices(
    model: nn.Module, names: list[str], optim: OptimSection, rates: RatesSection
) -> Iterator[tuple[str, dict[str, float]]]:
    """What each key of the config chooses, those that win first: (words for the key, name -> rate)."""
    for number, group in enumerate(rates.groups):
        pieces = {piece: {name: group.lr for name in names if piece in name} for piece in group.modules}
        for piece, chosen in pieces.items():
            yield f"lr_groups.{number}.modules: {piece}", chosen
    if rates.embedding_rate is not None or rates.embedding_rate_scale is not None:
        key = "embedding_lr" if rates.embedding_rate is not None else "embedding_lr_scale"
        rate = rates.embedding_rate or optim.learning_rate * (rates.embedding_rate_scale or 1)
        prefixes = _embeddings(model)
        yield f"{key}: the embeddings", {name: rate for name in names if name.startswith(prefixes)}
    if rates.loraplus_ratio is not None:
        embedding_rate = rates.loraplus_embedding_rate or _LORAPLUS_EMBEDDING_RATE
        in_embeddings = {name: embedding_rate for name in names if "lora_embedding_" in name}
        fast = {name: optim.learning_rate * rates.loraplus_ratio for name in names if ".lora_B." in name}
        yield "loraplus_lr_ratio: the B matrices of LoRA", {**in_embeddings, **fast}


def _embeddings(model: nn.Module) -> tuple[str, ...]:
    """What the names of the parameters of the embeddings and of the output head begin with."""
    ends = []
    for getter in ("get_input_embeddings", "get_output_embeddings"):
        module = getattr(model, getter)()
        ends += [f"{name}." for name, other in model.named_modules() if other is module and name]
    return tuple(ends)


def _some(names: list[str], most: int = 4) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} others" if len(names) > most else shown or "none"
