"""A run that is moved from place to place: Docker, Modal, this machine, and the same to the last bit."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from modal_emulator import ModalEmulator
from project import make_project

from ftl.image import BuiltImage

if TYPE_CHECKING:
    from docker import DockerClient

Ftl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def modal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModalEmulator]:
    with ModalEmulator.start(tmp_path_factory.mktemp("modal"), env={"OMP_NUM_THREADS": "1"}) as emulator:
        yield emulator
        assert emulator.fsck() == []


@pytest.fixture
def ftl(modal: ModalEmulator, own_state: Path) -> Ftl:
    """The command line of somebody with a Docker engine and an account with Modal."""
    there = {key: value for key, value in os.environ.items() if not key.startswith("MODAL_")}
    there |= modal.client_env(modal.log.parent)

    def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", "from ftl.cli import main; main()", *map(str, arguments)]
        env = {**there, "FTL_STATE_DIR": str(own_state), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=240, check=False)
        assert done.returncode == 0, done.stderr + done.stdout
        return done

    return run


def events(content: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content.splitlines() if line.endswith(b"}")]


def losses(content: bytes) -> dict[int, float]:
    return {one["data"]["step"]: one["data"]["loss"] for one in events(content) if one["event"] == "step"}


def verified(content: bytes) -> list[int]:
    saved = (one["data"] for one in events(content) if one["event"] == "checkpoint")
    return [data["step"] for data in saved if data["state"] == "verified"]


def wait_for(claim: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 200
    while not (found := claim()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return found


def content_of(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_run_that_goes_from_docker_to_modal_and_home_equals_the_one_that_stayed(
    ftl: Ftl, modal: ModalEmulator, engine: "DockerClient", built: BuiltImage, own_state: Path, tmp_path: Path
) -> None:
    config = make_project(tmp_path / "project", num_epochs=12, save_steps=5)
    docker, cloud, home = (tmp_path / name for name in ("docker.yml", "modal.yml", "local.yml"))
    docker.write_text("provider: docker\nimage: cpu\nenv: {OMP_NUM_THREADS: '1'}\n")
    cloud.write_text("provider: modal\nimage: cpu\n")
    home.write_text("provider: local\n")
    ftl("train", config, "--output-dir", tmp_path / "stayed")
    (stayed,) = own_state.glob("runs/*/events.jsonl")
    expected = losses(stayed.read_bytes())

    submitted = ftl("train", config, "--cloud", docker, "--output-dir", tmp_path / "moved", "--detach", "--json")
    run_id = json.loads(submitted.stdout.splitlines()[-1])["run"]
    here = own_state / "runs" / run_id
    wait_for(lambda: verified(content_of(here / "events.jsonl")), "no checkpoint in the container")
    for container in engine.containers.list(filters={"label": f"io.ftl.run={run_id}"}):
        container.kill()
    in_docker = max(verified(content_of(here / "events.jsonl")))

    moved = ftl("resume", run_id, "--cloud", cloud, "--detach")
    assert f"the checkpoint of step {in_docker} goes along" in " ".join(moved.stderr.split())

    def there(name: str) -> bytes:
        content: bytes = modal._fetch("GET", f"/volumes/ftl/files/runs/{run_id}/run/{name}")
        return content

    wait_for(lambda: max(verified(there("events.jsonl"))) > in_docker, "no checkpoint on Modal")
    ftl("stop", run_id)
    on_modal = max(verified(there("events.jsonl")))
    record = modal._fetch("GET", f"/volumes/ftl/files/runs/{run_id}/record.json")
    assert str(own_state).encode() not in record, "no path of this machine is told"

    ftl("resume", run_id, "--cloud", home)
    told = content_of(here / "events.jsonl")
    resumed = [one["data"]["step"] for one in events(told) if one["event"] == "resumed"]
    assert resumed == [in_docker, on_modal]
    assert on_modal < max(expected), "it was at work in all three places"
    assert losses(told) == expected
    assert sha256(tmp_path / "moved/model.safetensors") == sha256(tmp_path / "stayed/model.safetensors")
    (line,) = [one for one in map(json.loads, ftl("ps", "--json").stdout.splitlines()) if one["run"] == run_id]
    assert (line["state"], line["providers"]) == ("done", ["docker", "modal", "local"])
    assert [one["event"] for one in events(told)].count("result") == 1

    ftl("rm", run_id)
    assert engine.containers.list(all=True, filters={"label": f"io.ftl.run={run_id}"}) == []
    assert not [path for path in modal.committed("ftl") if path.startswith(f"runs/{run_id}/")]
