"""trackio: a local database, or a Space on the Hub."""

import os
from collections.abc import Sequence
from typing import Any

from ftl_runtime.tracking.tracker import COLUMNS, End, Run, Sample, Values


class TrackioTracker:
    """An attempt goes on under the run's name."""

    def start(self, run: Run) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(run.directory))  # read when the package is imported
        import trackio

        tracking = run.tracking
        self._module: Any = trackio  # Any: trackio is imported here only
        self._run: Any = trackio.init(
            project=tracking.trackio_project or "ftl",
            name=tracking.trackio_name or run.id,
            space_id=tracking.trackio_space or None,
            config=dict(run.config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, step: int, values: Values) -> None:
        self._module.log(dict(values), step=step)

    def log_samples(self, step: int, samples: Sequence[Sample]) -> None:
        rows = [[sample[name] for name in COLUMNS] for sample in samples]
        table = self._module.Table(columns=list(COLUMNS), data=rows)
        self._module.log({"eval/samples": table}, step=step)

    def finish(self, end: End) -> None:
        self._module.finish()
