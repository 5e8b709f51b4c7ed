"""MLflow: a server, a database, or files."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from ftl_runtime.checkpoint.manifest import replace_synced
from ftl_runtime.tracking.tracker import End, Run, Sample, Values, as_markdown

_RUN_FILE = "run.json"
_STATUS = {"done": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_PARAMS_AT_ONCE = 100
_PARAM_LENGTH = 6000


class MlflowTracker:
    """The id that the server gave the run is kept in the run directory, so that later attempts find it."""

    def start(self, run: Run) -> None:
        # Its own patience is minutes a request; what is late is told at the end of the run.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # else it asks for a database
        from mlflow import MlflowClient

        tracking = run.tracking
        address = tracking.mlflow_tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(tracking_uri=address or (run.directory / "store").absolute().as_uri())
        record = run.directory / _RUN_FILE
        if record.exists():
            self._id = json.loads(record.read_text())["run_id"]
            self._client.update_run(self._id, status="RUNNING")
            return
        name = tracking.mlflow_experiment_name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "ftl"
        created = self._client.create_run(self._experiment(name), run_name=tracking.mlflow_run_name or run.id)
        self._id = created.info.run_id
        replace_synced(record, json.dumps({"run_id": self._id}).encode())
        self._log_params(run.config)

    def log(self, step: int, values: Values) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._id, metrics=[Metric(name, value, now, step) for name, value in values.items()])

    def log_samples(self, step: int, samples: Sequence[Sample]) -> None:
        self._client.log_text(self._id, as_markdown(samples), f"samples/step-{step}.md")

    def finish(self, end: End) -> None:
        self._client.set_terminated(self._id, _STATUS[end])

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        return str(found.experiment_id if found else self._client.create_experiment(name))

    def _log_params(self, config: Mapping[str, Any]) -> None:  # Any: JSON
        from mlflow.entities import Param

        params = [Param(name, str(value)[:_PARAM_LENGTH]) for name, value in config.items()]
        for start in range(0, len(params), _PARAMS_AT_ONCE):
            self._client.log_batch(self._id, params=params[start : start + _PARAMS_AT_ONCE])
