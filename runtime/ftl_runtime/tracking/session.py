"""From the events of a training to its trackers."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib.machinery import PathFinder
from typing import Any

from ftl.config.train import TrainConfig
from ftl.errors import BackendError, PreemptedError
from ftl.redact import redacted_data
from ftl.trackers import TRACKERS, chosen
from ftl_runtime.context import Context
from ftl_runtime.tracking.comet import CometTracker
from ftl_runtime.tracking.feed import Feed
from ftl_runtime.tracking.mlflow import MlflowTracker
from ftl_runtime.tracking.tensorboard import TensorboardTracker
from ftl_runtime.tracking.tracker import End, Run, Tracker
from ftl_runtime.tracking.trackio import TrackioTracker
from ftl_runtime.tracking.wandb import WandbTracker

ADAPTERS: dict[str, Callable[[], Tracker]] = {
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
    "comet": CometTracker,
    "tensorboard": TensorboardTracker,
    "trackio": TrackioTracker,
}
DIRECTORY = "trackers"
"""Below the run directory: what trackers write to this machine."""
_PATIENCE_S = 60.0
_GRACE_SHARE = 0.25
"""Of the time between the request to stop and the kill; the checkpoint had the rest."""

# Event's name -> tracker's name, as transformers calls them. Whatever else an event measures keeps its own.
_STEP_NAMES = {"lr": "learning_rate"}
_NOT_MEASURED = ("step", "max_steps")
# Nothing of the machine that launched the job: paths are its own, trackers may have passwords in their addresses.
_PRIVATE = ("tracking", "output.output_dir", "output.resume_from_checkpoint")


@contextmanager
def tracked(cfg: TrainConfig, ctx: Context) -> Iterator[Context]:
    """A context whose events also go to the trackers that the config asks for; they are closed on the way out.

    Raises BackendError when the package of one is not installed. Rank 0 alone reports.
    """
    names = chosen(cfg.tracking)
    missing = [TRACKERS[name] for name in names if PathFinder.find_spec(TRACKERS[name].package) is None]
    if missing:
        raise BackendError(
            *(
                f"{needs.key}: needs the package {needs.distribution}, which is not installed here; "
                "pip install 'ftl-launcher[trackers]', or remove the key"
                for needs in missing
            )
        )
    if not names or not ctx.device.is_main:
        yield ctx
        return
    session = _Session(names, cfg, ctx)
    end: End = "failed"
    try:
        yield replace(ctx, emit=session.emit)
        end = "done"
    except PreemptedError:
        end = "stopped"
        raise
    finally:
        session.finish(end)


class _Session:
    """Takes the events. Trackers start with the training, when it is known where it goes on from."""

    def __init__(self, names: tuple[str, ...], cfg: TrainConfig, ctx: Context) -> None:
        self._names = names
        self._cfg = cfg
        self._ctx = ctx
        self._feeds: list[Feed] | None = None
        self._resumed_step: int | None = None

    def emit(self, event: str, data: dict[str, Any]) -> None:  # Any: the shape depends on the event, see ftl.contract
        self._ctx.emit(event, data)
        if event == "resumed":
            self._resumed_step = data["step"]
        elif event == "phase" and data["name"] in ("training", "evaluating") and self._feeds is None:
            self._feeds = self._start()
        elif event in ("step", "eval"):
            self._log(event, data)
        elif event == "samples":
            for feed in self._feeds or ():
                feed.log_samples(data["step"], data["samples"])

    def finish(self, end: End) -> None:
        """Blocks until all trackers have all numbers, or patience is over."""
        patience_s = _PATIENCE_S if end == "done" else self._ctx.job.grace_s * _GRACE_SHARE
        until = time.monotonic() + patience_s
        for feed in self._feeds or ():
            feed.finish(end)
        for feed in self._feeds or ():
            feed.wait(max(until - time.monotonic(), 0))

    def _start(self) -> list[Feed]:
        feeds = []
        for name in self._names:
            directory = self._ctx.run_dir / DIRECTORY / name
            directory.mkdir(parents=True, exist_ok=True)
            run = Run(self._ctx.job.run_id, shown_config(self._cfg), directory, self._cfg.tracking, self._resumed_step)
            feeds.append(Feed(name, ADAPTERS[name](), run, self._ctx.warn))
        return feeds

    def _log(self, event: str, data: Mapping[str, Any]) -> None:  # Any: as above
        values = measured("train" if event == "step" else "eval", data)
        for feed in self._feeds or ():
            feed.log(data["step"], values)


def measured(group: str, data: Mapping[str, Any]) -> dict[str, float]:  # Any: as above
    """The numbers of a step or eval event as trackers name them: train/loss. Those that are not finite are left out."""
    return {
        f"{group}/{_STEP_NAMES.get(name, name)}": float(value)
        for name, value in data.items()
        if name not in _NOT_MEASURED
        and isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
    }


def shown_config(cfg: TrainConfig) -> dict[str, Any]:  # Any: of all the kinds that a config has
    """The config as trackers get it: dotted names, what differs from nothing, no secrets, no paths of the
    launching machine."""
    flat = _flat("", cfg.model_dump(mode="json"))
    return {
        name: redacted_data(value)
        for name, value in flat.items()
        if not any(name == hidden or name.startswith(f"{hidden}.") for hidden in _PRIVATE)
    }


def _flat(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:  # Any: JSON
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(f"{prefix}{name}.", value)
        elif value not in (None, [], ""):
            found[f"{prefix}{name}"] = value
    return found
