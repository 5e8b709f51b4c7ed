"""ftl preprocess with push_dataset_to_hub, against a Hub on loopback; and the pushed rows as a dataset."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from commandline import Ftl
from hub_server import HubServer
from project import make_project

ANN = {"name": "ann", "type": "user", "auth": {"accessToken": {"role": "write"}}}


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        server.accounts["hf_ann"] = ANN
        yield server


@pytest.fixture
def online(ftl: Ftl, hub: HubServer, tmp_path: Path) -> Ftl:
    """The command line of somebody whose Hub is `hub`, with caches of their own."""
    mine = {"HF_HOME": str(tmp_path / "hf"), "FTL_CACHE_DIR": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0"}
    return partial(ftl, HF_ENDPOINT=hub.url, HF_TOKEN="hf_ann", HF_HUB_DISABLE_XET="1", **mine)


def facts(output: str) -> tuple[dict, list]:
    """What the data event says of the rows that are trained, and the documents that `--debug` shows."""
    lines = [json.loads(line) for line in output.splitlines()]
    (data,) = [line["data"] for line in lines if line.get("event") == "data"]
    return data["train"], [line for line in lines if "event" not in line]


def test_pushed_rows_train_as_the_rows_they_were_made_of(online: Ftl, hub: HubServer, tmp_path: Path) -> None:
    def preprocess(name: str, **keys: object) -> tuple[dict, list]:
        make_project(tmp_path / name, num_rows=12, val_set_size=0, **keys)
        done = online("preprocess", "cfg.yml", "--debug", "--json", cwd=tmp_path / name)
        assert done.returncode == 0, done.stderr
        return facts(done.stdout)

    rows, shown = preprocess("first", push_dataset_to_hub="ann/rows")
    repository = hub.repositories["dataset", "ann/rows"]
    assert repository.is_private
    (name,) = [file.partition("/")[0] for file in repository.files if file.endswith("/train.parquet")]
    again, shown_again = preprocess("second", datasets=[{"path": "ann/rows", "name": name, "type": ""}])
    assert rows["documents"] == 12
    assert again == rows
    assert shown_again == shown != []


def test_refused_push_ends_a_training_before_it_tokenises(online: Ftl, hub: HubServer, tmp_path: Path) -> None:
    hub.add("dataset", "org/theirs", {"README.md": b""})
    make_project(tmp_path / "project", num_rows=12, push_dataset_to_hub="org/theirs")
    done = online("train", "cfg.yml", "--json", cwd=tmp_path / "project")
    assert done.returncode == 2
    *events, end = [json.loads(line) for line in done.stdout.splitlines()]
    assert end["message"] == (
        "push_dataset_to_hub: org/theirs: the Hub answered 403: You do not have write access to this repository; "
        "set HF_TOKEN to a token with that right"
    )
    assert {event.get("event") for event in events}.isdisjoint({"data", "step"})
