"""Comet: its service, or archives for `comet upload`."""

import hashlib
import sys
from collections.abc import Sequence
from typing import Any

from ftl_runtime.tracking.tracker import End, Run, Sample, Values, as_markdown

# Its own reading of the machine, the code and the terminal is off: it would log host, paths and arguments.
_QUIET: dict[str, Any] = {  # Any: keyword arguments
    "log_code": False,
    "parse_args": False,
    "display_summary_level": 0,
    "log_git_metadata": False,
    "log_git_patch": False,
    "log_env_details": False,
    "auto_output_logging": False,
    "auto_param_logging": False,
    "auto_metric_logging": False,
    "auto_log_co2": False,
}


class CometTracker:
    """The experiment's key is made from the run's id, so that later attempts go on with it."""

    def start(self, run: Run) -> None:
        if sys.modules.get("comet_ml", self) is None:
            del sys.modules["comet_ml"]  # ftl_runtime.lean keeps transformers from importing it
        import comet_ml

        tracking = run.tracking
        key = tracking.comet_experiment_key or hashlib.sha256(run.id.encode()).hexdigest()[:32]
        settings = {**_QUIET, "name": run.id, "offline_directory": str(run.directory)}
        begun = run.directory / "begun"
        mode = tracking.comet_mode
        if begun.exists() and mode == "create":
            mode = "get"
        if tracking.comet_online is False:  # an archive is one attempt's, and must say whether others come before it
            mode = "get" if begun.exists() else "create"
        self._experiment: Any = comet_ml.start(  # Any: comet_ml is imported here only
            workspace=tracking.comet_workspace or None,
            project_name=tracking.comet_project or None,
            experiment_key=key,
            mode=mode,
            online=tracking.comet_online,
            experiment_config=comet_ml.ExperimentConfig(**{**settings, **tracking.comet_experiment_config}),
        )
        begun.touch()
        self._experiment.log_parameters(dict(run.config))

    def log(self, step: int, values: Values) -> None:
        self._experiment.log_metrics(dict(values), step=step)

    def log_samples(self, step: int, samples: Sequence[Sample]) -> None:
        self._experiment.log_text(as_markdown(samples), step=step)

    def finish(self, end: End) -> None:
        self._experiment.end()
