"""Tells the Ray worker that started this rank of every checkpoint."""

import json
import os
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

REPORT_FD = "FTL_REPORT_FD"
"""As in rayworker.py, which a rank does not import: it has Ray in it."""


class RayReport(TrainerCallback):
    """One JSON line a checkpoint, from each rank, once the files have been read back."""

    def __init__(self, trainer: Trainer, fd: int) -> None:
        self._trainer: Any = trainer  # Any: ours, whose module imports half of the runtime
        self._fd = fd

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        progress = self._trainer.progress  # Any: the Trainer passes its parts, none of which is used
        metrics = {"step": state.global_step, "epoch": state.epoch, "tokens": progress.tokens}
        metrics |= {"loss": progress.logged_loss, "eval_loss": progress.last_eval_loss}
        os.write(self._fd, json.dumps(metrics).encode() + b"\n")


def ray_listens() -> bool:
    """Whether there is a Ray worker: it is told of a checkpoint once that is whole, by all ranks."""
    return REPORT_FD in os.environ


def ray_report(trainer: Trainer) -> RayReport | None:
    """None where no Ray worker listens."""
    fd = os.environ.get(REPORT_FD)
    return RayReport(trainer, int(fd)) if fd is not None else None
