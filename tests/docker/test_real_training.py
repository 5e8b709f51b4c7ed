"""The real runtime in a real container, through the command line: secrets, ownership, stop, resume, kills."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ftl.image import BuiltImage

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
from kill_loop import Loop
from project import make_project

if TYPE_CHECKING:
    from docker import DockerClient

TIMES = int(os.environ.get("FTL_TEST_KILLS", "2"))
CANARY = "canary-51d0c7aa93"
Ftl = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cloud(tmp_path: Path, built: BuiltImage) -> Path:
    path = tmp_path / "docker.yml"
    path.write_text("provider: docker\nimage: cpu\nsecrets: [MY_TOKEN]\nenv: {OMP_NUM_THREADS: '1'}\n")
    return path


@pytest.fixture
def ftl() -> Ftl:
    def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        command = [str(Path(sys.executable).parent / "ftl"), *map(str, arguments)]
        env = {**os.environ, "MY_TOKEN": CANARY, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=240, check=False)

    return run


def newest(ftl: Ftl) -> str:
    return str(json.loads(ftl("ps", "--json").stdout.splitlines()[0])["run"])


def events(state: Path, run_id: str) -> list[dict[str, object]]:
    path = state / "runs" / run_id / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_stopped_container_resumes_to_the_same_weights_and_leaks_no_secret(
    ftl: Ftl, cloud: Path, tmp_path: Path, own_state: Path, engine: "DockerClient"
) -> None:
    config = make_project(tmp_path / "project", num_epochs=6, save_steps=1000)
    local = ftl("train", config, "--output-dir", tmp_path / "straight")
    assert local.returncode == 0, local.stderr

    detached = ftl("train", config, "--cloud", cloud, "--detach", "--output-dir", tmp_path / "in-container")
    assert detached.returncode == 0, detached.stderr
    run_id = newest(ftl)
    deadline = time.monotonic() + 90
    while not any(e["event"] == "step" for e in events(own_state, run_id)):
        assert time.monotonic() < deadline, ftl("logs", run_id).stdout
        time.sleep(0.1)
    (container,) = engine.containers.list(filters={"label": f"io.ftl.run={run_id}"})
    inspected = json.dumps(engine.api.inspect_container(container.id))
    history = json.dumps(engine.api.history(container.image.id))
    stopped = ftl("stop", run_id)
    assert stopped.returncode == 0, stopped.stderr
    assert json.loads((own_state / "runs" / run_id / "exit.json").read_text())["exit_code"] == 75
    resumed = ftl("resume", run_id)
    assert resumed.returncode == 0, resumed.stderr

    for name in ("model.safetensors", "tokenizer.json"):
        one, other = (tmp_path / folder / name for folder in ("straight", "in-container"))
        assert hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(other.read_bytes()).digest()
    hidden = (CANARY, base64.b64encode(CANARY.encode()).decode())
    said = [inspected, history, *(d.stdout + d.stderr for d in (detached, stopped, resumed))]
    assert not any(form in text for form in hidden for text in said)
    for folder in (own_state, tmp_path / "in-container"):
        for path in folder.rglob("*"):
            assert path.stat().st_uid == os.getuid(), f"{path} belongs to another"
            assert not path.is_file() or not any(form.encode() in path.read_bytes() for form in hidden), path
    assert ftl("rm", run_id).returncode == 0
    assert engine.containers.list(all=True, filters={"label": f"io.ftl.run={run_id}"}) == []


@pytest.mark.parametrize("victim", ["container", "trainer", "supervisor", "launcher"])
def test_killed_run_in_a_container_equals_the_uninterrupted_one(victim: str, tmp_path: Path, built: BuiltImage) -> None:
    path = tmp_path / "docker.yml"
    path.write_text("provider: docker\nimage: cpu\n")
    tally = Loop(tmp_path, victim, path, seed=2, num_epochs=5).run(TIMES)
    assert tally.kills == TIMES
