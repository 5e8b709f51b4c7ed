"""A run that is sent away while it trains: to a Hub and to a directory, from where another machine goes on."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from commandline import Ftl, run_ids
from hub_server import HubServer
from project import make_project


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        server.accounts["hf_ann"] = {"name": "ann", "auth": {"accessToken": {"role": "write"}}}
        yield server


@pytest.fixture
def online(ftl: Ftl, hub: HubServer, tmp_path: Path) -> Ftl:
    """The command line of somebody whose Hub is `hub`, with caches of their own, and little patience."""
    mine = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0", "FTL_STORE_PATIENCE_S": "4"}
    return partial(ftl, HF_ENDPOINT=hub.url, HF_TOKEN="hf_ann", HF_HUB_DISABLE_XET="1", **mine)


def events_of(run: Path, name: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [line["data"] for line in lines if line["event"] == name]


def losses(run: Path) -> dict[int, float]:
    return {data["step"]: data["loss"] for data in events_of(run, "step")}


@contextmanager
def away_until_trained(hub: HubServer, runs: Path) -> Iterator[None]:
    """The Hub takes nothing that is sent to it until a run has its finished model, and has told of the outage."""
    for page in ("/preupload/", "/commit/"):
        hub.disturb("away", times=10**6, path=page)
    is_over = threading.Event()

    def heal() -> None:
        while not is_over.wait(0.02):
            is_told = any("tried again" in log.read_text() for log in runs.glob("*/events.jsonl"))
            if is_told and any(runs.glob("*/output/manifest.json")):
                hub.heal()
                return

    watcher = threading.Thread(target=heal)
    watcher.start()
    yield
    is_over.set()
    watcher.join()


def test_run_is_sent_away_after_an_outage_and_any_machine_goes_on_with_it(
    online: Ftl, hub: HubServer, own_state: Path, tmp_path: Path
) -> None:
    make_project(tmp_path / "project", num_rows=48, num_epochs=2, save_steps=3, hub_model_id="ann/model")
    (tmp_path / "cloud.yml").write_text(f"provider: local\ncheckpoints: file://{tmp_path}/bucket\n")
    with away_until_trained(hub, own_state / "runs"):
        # The client itself waits up to 23 s before it tells of a server that is away.
        more = {"cwd": tmp_path / "project", "FTL_STORE_PATIENCE_S": "90"}
        straight = online("train", "cfg.yml", "--cloud", "../cloud.yml", **more)
    assert straight.returncode == 0, straight.stderr
    (run_id,) = run_ids(online)
    run = own_state / "runs" / run_id
    told = [data["message"] for data in events_of(run, "warning") if "ann/model" in data["message"]]
    assert [sentence.rpartition("; ")[2] for sentence in told] == [
        "training goes on, and it is tried again",
        "hf://ann/model answers again",
    ]
    pushed = [data["step"] for data in events_of(run, "checkpoint") if data.get("store") == "hf://ann/model"]
    saved = {int(path.name.removeprefix("checkpoint-")) for path in (run / "checkpoints").glob("checkpoint-*")}
    assert pushed == [max(saved)], "several were made, and the newest is all that counts"
    assert len(saved) > 1
    expected = losses(run)
    (result,) = events_of(run, "result")
    assert {data["store"] for data in events_of(run, "delivered")} == {
        "hf://ann/model",
        f"file://{tmp_path}/bucket/{run_id}",
    }
    assert (
        hub.repositories["model", "ann/model"].files["model.safetensors"]
        == (run / "output/model.safetensors").read_bytes()
    )

    # The machine is lost, the last checkpoint too: what is in the stores is all there is.
    last = result["steps"]
    for place in (
        run / "checkpoints",
        run / "output",
        run / ".outbox",
        tmp_path / "bucket" / run_id / f"checkpoint-{last}",
    ):
        shutil.rmtree(place, ignore_errors=True)
    for file in ("result.json", "exit.json", "events.jsonl"):
        (run / file).unlink()
    hub.repositories["model", "ann/model"].commit({})
    resumed = online("resume", run_id, cwd=tmp_path / "project")
    assert resumed.returncode == 0, resumed.stderr + resumed.stdout
    (fetched,) = [data for data in events_of(run, "checkpoint") if data["state"] == "fetched"]
    assert 0 < fetched["step"] < last
    assert losses(run) == {step: loss for step, loss in expected.items() if step > fetched["step"]}


@pytest.mark.parametrize(
    ("is_full", "reason"),
    [
        pytest.param(True, "the Hub answered 403: Private repository storage limit reached", id="full account"),
        pytest.param(False, "does not answer (SilenceError)", id="outage that outlasts the patience"),
    ],
)
def test_model_that_cannot_be_delivered_is_kept_and_pushed_later(
    online: Ftl, hub: HubServer, own_state: Path, tmp_path: Path, is_full: bool, reason: str
) -> None:
    make_project(tmp_path / "project", num_rows=24, num_epochs=1, hub_model_id="ann/model", hub_strategy="end")
    if is_full:
        hub.quota_bytes = 1000
    else:
        hub.disturb("hang", times=10**6, path="/preupload/")
    trained = online("train", "cfg.yml", cwd=tmp_path / "project", FTL_STORE_SILENCE_S="2")
    assert trained.returncode == 76
    said = " ".join((trained.stdout + trained.stderr).split())
    assert "trained, but not delivered: hub_model_id: ann/model: " in said
    assert reason in said
    (run_id,) = run_ids(online)
    run = own_state / "runs" / run_id
    assert (run / "output/manifest.json").is_file()
    hub.quota_bytes = None
    hub.heal()
    pushed = online("push", run_id, cwd=tmp_path / "project")
    assert pushed.returncode == 0, pushed.stderr
    assert (
        hub.repositories["model", "ann/model"].files["model.safetensors"]
        == (run / "output/model.safetensors").read_bytes()
    )
