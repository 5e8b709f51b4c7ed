"""A trace of some steps, and of the GPU's memory in them."""

from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from ftl_runtime.context import Context

DIRECTORY = "profile"
TRACE_FILE = "trace.json.gz"
MEMORY_FILE = "memory.pickle"
_MAX_ALLOCATIONS = 100_000


class StepProfiler(TrainerCallback):
    """Traces `num_steps` steps of rank 0, from the second of an attempt on: the first one warms up.

    Leaves RUN/profile/trace.json.gz (chrome://tracing, perfetto.dev) and on CUDA memory.pickle
    (pytorch.org/memory_viz). A run is profiled once, whatever becomes of it.
    """

    def __init__(self, num_steps: int, ctx: Context) -> None:
        self._num_steps = num_steps
        self._ctx = ctx
        self._directory = ctx.run_dir / DIRECTORY
        self._num_begun = 0
        self._profile: profile | None = None
        self._first_step = 0

    # Any: the Trainer passes its parts, none of which is used
    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._num_begun += 1
        is_only_one = state.global_step + 1 >= state.max_steps
        if self._profile is None and (self._num_begun == 2 or (self._num_begun == 1 and is_only_one)):
            self._start(state.global_step + 1)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._profile is not None and state.global_step >= self._first_step + self._num_steps - 1:
            self._finish(state.global_step)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._profile is not None:
            self._finish(state.global_step)

    def _start(self, step: int) -> None:
        if (self._directory / TRACE_FILE).exists():
            return
        self._first_step = step
        activities = [ProfilerActivity.CPU]
        if self._ctx.device.kind == "cuda":
            activities.append(ProfilerActivity.CUDA)
            torch.cuda.memory._record_memory_history(max_entries=_MAX_ALLOCATIONS)
        self._profile = profile(activities=activities, record_shapes=True, profile_memory=True)
        self._profile.start()

    def _finish(self, step: int) -> None:
        assert self._profile is not None
        self._profile.stop()
        self._directory.mkdir(exist_ok=True)
        if self._ctx.device.kind == "cuda":
            torch.cuda.memory._dump_snapshot(str(self._directory / MEMORY_FILE))  # type: ignore[no-untyped-call]
            torch.cuda.memory._record_memory_history(enabled=None)
        self._profile.export_chrome_trace(str(self._directory / TRACE_FILE))
        self._profile = None
        self._ctx.emit("profile", {"first_step": self._first_step, "last_step": step, "path": DIRECTORY})
