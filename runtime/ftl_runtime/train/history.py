"""The logged losses of a training from its first step on. Saved in each checkpoint, since a run that goes on elsewhere
may have left its events behind."""

import json
import math
from pathlib import Path
from typing import Any

from ftl.contract import EVENTS_FILE
from ftl_runtime.checkpoint.lossplot import add_history, losses_of
from ftl_runtime.context import Context, Emit

LOSSES_FILE = "losses.json"


class History:
    """Mutable; one per training, kept by rank 0. Losses that are not finite are left out."""

    def __init__(self) -> None:
        self._train: dict[int, float] = {}
        self._eval: dict[int, float] = {}

    @classmethod
    def load(cls, checkpoint: Path) -> "History":
        """That of a checkpoint; empty where it has none that can be read, as those of an earlier ftl."""
        history = cls()
        try:
            add_history(json.loads((checkpoint / LOSSES_FILE).read_bytes()), history._train, history._eval)
        except (OSError, ValueError, KeyError, TypeError):
            return cls()
        return history

    def save(self, directory: Path) -> None:
        """The same losses give the same bytes, and a float is read back as it was."""
        content = {"train": sorted(self._train.items()), "eval": sorted(self._eval.items())}
        (directory / LOSSES_FILE).write_text(json.dumps(content, allow_nan=False, separators=(",", ":")))

    def hearing(self, emit: Emit) -> Emit:
        """An `emit` that also notes the losses it is told."""

        def heard(event: str, data: dict[str, Any]) -> None:  # Any: the shape depends on the event, see ftl.contract
            place = {"step": self._train, "eval": self._eval}.get(event)
            loss = data.get("loss")  # an evaluation may measure something else
            if place is not None and isinstance(loss, int | float) and math.isfinite(loss):
                place[data["step"]] = loss
            emit(event, data)

        return heard

    def tell(self, ctx: Context) -> None:
        """Emit, before the first step of an attempt, the losses that the events of this directory lack, if any."""
        events_file = ctx.run_dir / EVENTS_FILE
        if not ctx.device.is_main:
            return
        train, scored = map(dict, losses_of(events_file) if events_file.is_file() else ((), ()))
        lacking = {
            "train": [[step, loss] for step, loss in sorted(self._train.items()) if step not in train],
            "eval": [[step, loss] for step, loss in sorted(self._eval.items()) if step not in scored],
        }
        if any(lacking.values()):
            ctx.emit("history", lacking)
