"""Who looks on while training goes on, and changes nothing of it."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftl.config.watch import WatchSection
from ftl_runtime.context import Context
from ftl_runtime.parallel.rayreport import ray_report
from ftl_runtime.train.hang import HangWatch
from ftl_runtime.train.profile import StepProfiler

_AT_EPOCHS = -1


class GarbageCollector(TrainerCallback):
    """Collects Python's garbage every so many steps, or after each epoch, and gives the GPU's free memory back."""

    def __init__(self, every: int) -> None:
        self._every = every

    # Any: the Trainer passes its parts, none of which is used
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._every > 0 and state.global_step % self._every == 0:
            self._collect()

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._every == _AT_EPOCHS:
            self._collect()

    def _collect(self) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextmanager
def watching(trainer: Trainer, watch: WatchSection, ctx: Context) -> Iterator[None]:
    """Have them look on while the block trains, however it ends."""
    hang = HangWatch(ctx.warn)
    found: list[TrainerCallback] = [hang]
    if watch.gc_steps:
        found.append(GarbageCollector(watch.gc_steps))
    if watch.profiler_steps and ctx.device.is_main:
        found.append(StepProfiler(watch.profiler_steps, ctx))
    if report := ray_report(trainer):
        found.append(report)
    for callback in found:
        trainer.add_callback(callback)
    hang.start()
    try:
        yield
    finally:
        hang.stop()
