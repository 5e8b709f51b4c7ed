"""The weights that a schedule-free optimizer would have used: the average of where it has been.

It trains at other points than that average, so whatever reads the weights, an evaluation or a save, asks for it here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer

_TRAINED = "ftl_trained"
"""In the state of a parameter, while a checkpoint is written: the point it is trained at, bit for bit."""


@contextmanager
def averaged_weights(optimizer: Optimizer | None) -> Iterator[None]:
    """Inside, the model has the averaged weights; after, exactly those it had before.

    A checkpoint that is written inside holds both, and `restore_trained` finds its way back. Other optimizers have
    one set of weights, and nothing happens.
    """
    inner = bare(optimizer)
    if not _is_schedule_free(inner):
        yield
        return
    parameters = [
        parameter for group in inner.param_groups for parameter in group["params"] if inner.state.get(parameter)
    ]
    for parameter in parameters:
        inner.state[parameter][_TRAINED] = parameter.detach().to("cpu", copy=True)  # a GPU may have no room for both
    inner.eval()
    try:
        yield
    finally:
        restore_trained(inner)


def restore_trained(optimizer: Optimizer | None) -> None:
    """Put the parameters back to where they are trained, after a checkpoint's state was loaded."""
    inner = bare(optimizer)
    if not _is_schedule_free(inner):
        return
    with torch.no_grad():
        for parameter, state in inner.state.items():
            if (trained := state.pop(_TRAINED, None)) is not None:
                parameter.copy_(trained)
    for group in inner.param_groups:
        group["train_mode"] = True


def mark_averaged(optimizer: Optimizer | None) -> None:
    """Say that the model has averaged weights already, after they were read from a checkpoint: it trains no more."""
    inner = bare(optimizer)
    if _is_schedule_free(inner):
        for group in inner.param_groups:
            group["train_mode"] = False


def bare(optimizer: Any) -> Any:  # Any: a wrapper, or what is in it
    """The optimizer itself, without what accelerate put around it."""
    while hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def _is_schedule_free(optimizer: Any) -> bool:  # Any: as above
    return hasattr(optimizer, "eval") and hasattr(optimizer, "train")
