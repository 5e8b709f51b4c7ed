"""Weights & Biases."""

import os
from collections.abc import Sequence
from typing import Any

from ftl_runtime.tracking.tracker import COLUMNS, STEP, End, Run, Sample, Values


class WandbTracker:
    """An attempt goes on under the run's id; without a network it leaves a directory for `wandb sync`."""

    def start(self, run: Run) -> None:
        import wandb

        tracking = run.tracking
        self._run: Any = wandb.init(  # Any: wandb is imported here only
            project=tracking.wandb_project or os.environ.get("WANDB_PROJECT") or "ftl",
            entity=tracking.wandb_entity or None,
            name=tracking.wandb_name or run.id,
            id=tracking.wandb_run_id or run.id,
            resume="allow",
            mode=tracking.wandb_mode,
            dir=run.directory,
            config={name.replace(".", "/"): value for name, value in run.config.items()},
            # Its own reading of the machine, the code and the terminal is off: it would log host and paths.
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, disable_code=True, save_code=False, x_disable_meta=True
            ),
        )
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP)

    def log(self, step: int, values: Values) -> None:
        # W&B keeps the first of what it gets for a step: steps that are trained again after a kill change nothing.
        self._run.log({**values, STEP: step}, step=step)

    def log_samples(self, step: int, samples: Sequence[Sample]) -> None:
        import wandb

        table = wandb.Table(columns=list(COLUMNS), data=[[sample[name] for name in COLUMNS] for sample in samples])
        self._run.log({"eval/samples": table, STEP: step}, step=step)

    def finish(self, end: End) -> None:
        self._run.finish(exit_code=1 if end == "failed" else 0)
