"""What a tracker is, and what it is told of the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from ftl.config.tracking import TrackingSection

Values = Mapping[str, float]
End = Literal["done", "stopped", "failed"]
Sample = Mapping[str, str]
"""Texts, by COLUMNS."""

COLUMNS = ("prompt", "expected", "generated")

STEP = "train/global_step"


@dataclass(frozen=True)
class Run:
    """The same for every attempt, `resumed_step` apart: so one run is one curve."""

    id: str
    config: Mapping[str, Any]
    """Dotted name -> value, JSON alone. Any: of all the kinds that a config has."""
    directory: Path
    """For the tracker's own files; it survives the attempt."""
    tracking: TrackingSection
    resumed_step: int | None
    """The step whose checkpoint is gone on from; None at the very start."""


class Tracker(Protocol):
    """Called from one thread only, which it may block; whatever it raises ends it and nothing else."""

    def start(self, run: Run) -> None:
        """Begin, or go on with what an earlier attempt has begun."""
        ...

    def log(self, step: int, values: Values) -> None: ...

    def log_samples(self, step: int, samples: Sequence[Sample]) -> None:
        """Texts that the model has generated."""
        ...

    def finish(self, end: End) -> None:
        """Send what is left. `stopped` is to be gone on with."""
        ...


def as_markdown(samples: Sequence[Sample]) -> str:
    """A table, for trackers that show text."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|---|---|"]
    for sample in samples:
        cells = (sample[name].replace("|", "\\|").replace("\n", "<br>") for name in COLUMNS)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
