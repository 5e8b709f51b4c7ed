"""A run that is stopped and gone on with is one curve in every tracker, read back from what each of them wrote."""

import json
import os
import sqlite3
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from wandb_file import records  # noqa: E402

from ftl.config.tracking import TrackingSection  # noqa: E402
from ftl.config.train import TrainConfig  # noqa: E402
from ftl_runtime.tracking.feed import Feed  # noqa: E402
from ftl_runtime.tracking.session import measured, shown_config  # noqa: E402
from ftl_runtime.tracking.tensorboard import TensorboardTracker  # noqa: E402
from ftl_runtime.tracking.tracker import Run  # noqa: E402

STEPS = [1, 2, 3, 4]
TRACKING = {
    "wandb_project": "p",
    "wandb_mode": "offline",
    "mlflow": True,
    "comet": True,
    "comet_online": False,
    "tensorboard": True,
    "trackio": True,
}


@pytest.fixture(scope="module")
def run(attempt_below, tmp_path_factory) -> tuple[Path, dict[int, float]]:
    """Four steps, stopped after the second and gone on with, with all trackers; and the losses by step."""
    tracking = {f"tracking__{key}": value for key, value in TRACKING.items()}
    attempt = attempt_below(
        tmp_path_factory.mktemp("tracked"), optim__max_steps=4, evaluation__num_samples=1, **tracking
    )
    attempt.spec = {"grace_s": 1000}  # a busy machine takes its time to import five trackers
    attempt.train(stop_at=2)
    attempt.train()
    warnings = [event["data"]["message"] for event in attempt.events("warning")]
    assert not [text for text in warnings if any(name in text for name in ("wandb", "mlflow", "comet", "trackio"))]
    return attempt.run, attempt.losses()


def test_wandb_goes_on_under_the_same_id(run):
    from wandb.proto import wandb_internal_pb2

    directory, losses = run
    files = sorted(directory.glob("trackers/wandb/wandb/offline-run-*/*.wandb"))
    assert [file.name for file in files] == ["run-tiny.wandb"] * 2
    logged, config = {}, {}
    for file in files:
        for data in records(file):
            record = wandb_internal_pb2.Record.FromString(data)
            if record.WhichOneof("record_type") == "run":
                config |= {item.key: item.value_json for item in record.run.config.update}
            items = {".".join(i.nested_key) or i.key: i.value_json for i in record.history.item}
            if "train/loss" in items:
                logged[int(items["train/global_step"])] = float(items["train/loss"])
                assert items["_step"] == items["train/global_step"]
    assert logged == pytest.approx(losses)
    assert list(logged) == STEPS
    assert json.loads(config["optim/learning_rate"]) == 0.01


def test_mlflow_has_one_run_that_is_finished(run):
    from mlflow import MlflowClient

    directory, losses = run
    client = MlflowClient(tracking_uri=(directory / "trackers/mlflow/store").as_uri())
    found = client.search_runs([client.get_experiment_by_name("ftl").experiment_id])
    assert [(r.info.run_name, r.info.status) for r in found] == [("tiny", "FINISHED")]
    history = client.get_metric_history(found[0].info.run_id, "train/loss")
    assert {metric.step: metric.value for metric in history} == pytest.approx(losses)
    assert found[0].data.params["optim.learning_rate"] == "0.01"
    assert "eval/perplexity" in found[0].data.metrics
    samples = [Path(item.path).name for item in client.list_artifacts(found[0].info.run_id, "samples")]
    assert samples == ["step-0.md", "step-3.md", "step-4.md"]


def test_comet_archives_have_one_key(run):
    directory, losses = run
    archives = sorted((directory / "trackers/comet").glob("*.zip"), key=lambda path: path.stat().st_mtime)
    logged, keys, strategies = {}, set(), []
    for archive in archives:
        with zipfile.ZipFile(archive) as file:
            head = json.loads(file.read("experiment.json"))
            keys.add(head["offline_id"])
            strategies.append(head["resume_strategy"])
            for line in file.read("messages.json").decode().splitlines():
                metric = json.loads(line).get("payload", {}).get("metric")
                if metric and metric["metricName"] == "train/loss":
                    logged[metric["step"]] = metric["metricValue"]
    assert (len(keys), strategies) == (1, ["create", "get"])
    assert logged == pytest.approx(losses)


def test_tensorboard_shows_each_step_once(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    directory, losses = run
    accumulator = EventAccumulator(str(directory / "trackers/tensorboard"))
    accumulator.Reload()
    scalars = accumulator.Scalars("train/loss")
    assert [scalar.step for scalar in scalars] == STEPS
    assert {scalar.step: scalar.value for scalar in scalars} == pytest.approx(losses, rel=1e-6)
    assert "eval/loss" in accumulator.Tags()["scalars"]
    assert "eval/samples/text_summary" in accumulator.Tags()["tensors"]


def test_trackio_has_one_run(run):
    directory, losses = run
    with sqlite3.connect(next((directory / "trackers/trackio").glob("*.db"))) as database:
        rows = database.execute("select run_name, step, metrics from metrics").fetchall()
    numbers = [(step, json.loads(metrics)) for _, step, metrics in rows]
    logged = {step: values["train/loss"] for step, values in numbers if "train/loss" in values}
    assert {name for name, _, _ in rows} == {"tiny"}
    assert logged == pytest.approx(losses)


def test_config_is_told_without_places_of_the_launching_machine():
    cfg = TrainConfig.model_validate(
        {
            "model": {"base": "org/base"},
            "data": {"datasets": [{"path": "bundle:rows.jsonl", "type": "alpaca"}]},
            "optim": {"learning_rate": 1e-3},
            "output": {"output_dir": "/home/me/secret-project", "resume_from_checkpoint": "/home/me/x"},
            "tracking": {"mlflow_tracking_uri": "https://me:canary@host"},
        }
    )
    shown = shown_config(cfg)
    assert shown["model.base"] == "org/base" and shown["optim.learning_rate"] == 1e-3
    assert "/home/me" not in json.dumps(shown) and "canary" not in json.dumps(shown)


def test_numbers_have_the_names_that_transformers_gives_them():
    step = {"step": 3, "max_steps": 9, "loss": 1.5, "lr": 0.1, "grad_norm": None, "tokens_per_s": float("nan")}
    assert measured("train", step) == {"train/loss": 1.5, "train/learning_rate": 0.1}
    assert measured("eval", {"step": 3, "loss": 1.5, "perplexity": 4.5}) == {"eval/loss": 1.5, "eval/perplexity": 4.5}


class Broken:
    """Fails at each number."""

    def __init__(self):
        self.calls = Counter()

    def start(self, run):
        self.calls["start"] += 1

    def log(self, step, values):
        self.calls["log"] += 1
        raise SystemExit("no network\nand more lines")

    def finish(self, end):
        self.calls["finish"] += 1


def test_tracker_that_fails_is_told_once_and_left_alone():
    warnings, broken = [], Broken()
    feed = Feed("wandb", broken, None, warnings.append)
    for step in STEPS:
        feed.log(step, {})
    feed.finish("done")
    feed.wait(10)
    assert broken.calls == {"start": 1, "log": 1}
    assert warnings == ["wandb: no network; the training goes on without it, and events.jsonl has every number"]


def test_tracker_that_hangs_is_left_behind():
    import threading

    class Hanging(Broken):
        def log(self, step, values):
            threading.Event().wait(30)

    warnings = []
    feed = Feed("comet", Hanging(), None, warnings.append)
    feed.log(1, {})
    feed.finish("done")
    feed.wait(0.1)
    assert warnings == ["comet: is slow to take its last numbers; some may be missing there"]


def test_attempt_that_starts_anew_hides_the_one_before(tmp_path):
    """As after running out of memory before the first checkpoint."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for value in (1.0, 2.0):
        run = Run("tiny", {}, tmp_path, TrackingSection(), resumed_step=None)
        feed = Feed("tensorboard", TensorboardTracker(), run, pytest.fail)
        for step in (0, 1):
            feed.log(step, {"train/loss": value})
        feed.finish("failed")
        feed.wait(60)
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    assert [(s.step, s.value) for s in accumulator.Scalars("train/loss")] == [(0, 2.0), (1, 2.0)]


def test_no_tracker_is_imported_unless_asked_for():
    """As ftl_runtime.rank imports: transformers would import comet_ml by itself."""
    code = (
        "import sys; sys.modules.setdefault('comet_ml', None); import ftl_runtime.run; "
        "print([n for n in ('wandb', 'mlflow', 'comet_ml', 'tensorboard', 'trackio') if sys.modules.get(n)])"
    )
    root = Path(__file__).parents[3]
    env = {**os.environ, "PYTHONPATH": f"{root / 'launcher'}:{root / 'runtime'}"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"
