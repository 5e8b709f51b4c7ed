"""What a training has come to so far: the sums behind the logged losses and the result. Saved in each checkpoint."""

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from ftl_runtime.context import Device

PROGRESS_FILE = "progress.json"


@dataclass
class Progress:
    """Mutable; one per training. Sums of losses are exact: fp32 values, which JSON keeps bit for bit."""

    tokens: int = 0
    """Trained on so far, padding left out, over all attempts and ranks."""
    logged_step: int = 0
    """The step up to which losses are logged."""
    window_loss: float = 0.0
    """Sum of the step losses since."""
    first_loss: float = 0.0
    """Sum of the step losses in the first tenth of the steps."""
    last_loss: float = 0.0
    window_metrics: dict[str, list[float]] = field(default_factory=dict)
    """Of the steps since logged_step: name -> sum, and over how many."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Of the last evaluation; without one, of the last logged steps."""
    evaluated_step: int | None = None
    first_eval_loss: float | None = None
    last_eval_loss: float | None = None
    best_value: float | None = None
    best_step: int | None = None
    num_worse: int = 0
    """Evaluations since the best one."""
    is_exhausted: bool = False
    """Stopped early: nothing is left to train."""
    num_too_high: int = 0
    """Losses in a row above the threshold, up to the last one logged."""
    logged_loss: float = 0.0
    stream: dict[str, Any] | None = None  # Any: JSON
    """From where a stream is read on: a ftl_runtime.data.stream.Mark."""
    trained: list[str] | None = None
    """Patterns of the weights that are trained, where they were chosen by their values at the start."""
    num_threads: int = 0
    """CPU threads of the first attempt; the order of sums, so their last bits, depends on it."""

    def save(self, directory: Path) -> None:
        (directory / PROGRESS_FILE).write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, directory: Path) -> "Progress":
        known = {each.name for each in fields(cls)}
        record = json.loads((directory / PROGRESS_FILE).read_text())
        return cls(**{key: value for key, value in record.items() if key in known})


class Stopwatch:
    """Seconds of training: evaluation and saving are left out."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._sum = 0.0

    def read(self) -> float:
        return self._sum + time.monotonic() - self._since

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._sum = self.read()
        try:
            yield
        finally:
            self._since = time.monotonic()


def peak_memory_gib(device: Device) -> float:
    """GPU memory that this process has reserved at most; resident memory of a training on the CPU."""
    if device.kind == "cuda":
        return torch.cuda.max_memory_reserved() / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 2**30
