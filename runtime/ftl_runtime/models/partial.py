"""A full fine-tune of some weights: all others are frozen, or all other rows of one."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ftl.config.trained import TrainedSection
from ftl.errors import ConfigError
from ftl_runtime import ranks
from ftl_runtime.context import Context
from ftl_runtime.models.spectrum import rank_weights
from ftl_runtime.train.progress import Progress

_ROWS = re.compile(r"(?P<name>.+)\[(?:(?P<one>\d+)|(?P<start>\d*):(?P<end>\d*))\]")


@dataclass(frozen=True)
class Wanted:
    """Weights whose names begin as `name` says, and which of their rows."""

    name: re.Pattern[str]
    rows: slice | None = None


def choose_trained(model: PreTrainedModel, trained: TrainedSection, progress: Progress, ctx: Context) -> None:
    """Freeze what the config leaves out. What was chosen by the weights' values is kept in `progress`, because they
    change."""
    if trained.spectrum_share is not None and progress.trained is None:
        progress.trained = ranks.share(_spectrum(model, trained.spectrum_share, ctx), ctx.device)
    patterns = [*trained.parameters, *(progress.trained or ())]
    if patterns:
        freeze_except(model, patterns)


def parse(pattern: str) -> Wanted:
    """`^lm_head.weight$[:100]` -> the first 100 rows of it. Raises ConfigError for what is no regular expression."""
    found = _ROWS.fullmatch(pattern)
    name, rows = (found["name"], _slice(found)) if found else (pattern, None)
    try:
        return Wanted(re.compile(name), rows)
    except re.error as error:
        raise ConfigError(f"unfrozen_parameters: {pattern}: is no regular expression: {error}") from error


def freeze_except(model: nn.Module, patterns: Iterable[str]) -> None:
    """Freeze every weight that no pattern names. Raises ConfigError for a pattern that names none."""
    wanted = {pattern: parse(pattern) for pattern in patterns}
    named = dict(model.named_parameters())
    for pattern, item in wanted.items():
        if not any(item.name.match(name) for name in named):
            example = max(named, key=len)
            raise ConfigError(f"unfrozen_parameters: {pattern}: no weight is named so; {example} is one of this model")
    for name, parameter in named.items():
        chosen = [item.rows for item in wanted.values() if item.name.match(name)]
        parameter.requires_grad_(bool(chosen))
        if chosen and None not in chosen:
            _train_rows(parameter, [rows for rows in chosen if rows is not None])


def _spectrum(model: PreTrainedModel, share: float, ctx: Context) -> list[str]:
    """Patterns for the weights with the most signal, and for the embeddings and the head."""
    device = torch.device(ctx.device.kind)
    names = rank_weights(model, share, device=device) if ctx.device.is_main else []
    ends = (model.get_input_embeddings(), model.get_output_embeddings())  # type: ignore[no-untyped-call]
    weights = [part.weight for part in ends if part is not None]
    names += [name for name, item in model.named_parameters() if any(item is weight for weight in weights)]
    return [f"^{re.escape(name)}$" for name in names]


def _slice(found: re.Match[str]) -> slice:
    if found["one"] is not None:
        return slice(int(found["one"]), int(found["one"]) + 1)
    return slice(int(found["start"] or 0), int(found["end"]) if found["end"] else None)


def _train_rows(parameter: nn.Parameter, rows: list[slice]) -> None:
    """Have the gradient of all other rows be 0: without weight decay, optimizers then leave them as they are."""
    frozen = torch.ones(parameter.shape[0], dtype=torch.bool)
    for item in rows:
        frozen[item] = False

    def hook(gradient: Tensor) -> Tensor:
        masked = gradient.clone()
        masked[frozen.to(gradient.device)] = 0
        return masked

    parameter.register_hook(hook)  # type: ignore[no-untyped-call]
