"""A real training on the emulated Modal: preempted twice, out of time once, killed once, and the same to the last bit.

Covers what the stand-in cannot: supervisor, trainers and checkpoints in containers whose volume forgets what was not
committed.
"""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from modal_emulator import ModalEmulator

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
from project import make_project

pytestmark = [pytest.mark.torch, pytest.mark.e2e]

FTL = [sys.executable, "-c", "from ftl.cli import main; main()"]
SECRET = "never-to-be-written-down"
CLOUD = """
provider: modal
image: cpu
secrets: [PROBE_PASSPHRASE]
env: {COLOUR: blue}
"""


def ftl(*arguments: str | Path, state: Path) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "OMP_NUM_THREADS": "1", "FTL_STATE_DIR": str(state), "PROBE_PASSPHRASE": SECRET}
    done = subprocess.run(
        [*FTL, *map(str, arguments)], capture_output=True, text=True, env=env, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done


def losses(events: bytes) -> dict[int, float]:
    steps = (json.loads(line) for line in events.splitlines() if line.endswith(b"}"))
    return {e["data"]["step"]: e["data"]["loss"] for e in steps if e["event"] == "step"}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Run:
    """A run on the emulated Modal as its volume shows it."""

    def __init__(self, server: ModalEmulator, run_id: str) -> None:
        self.server, self.id = server, run_id

    @property
    def call(self) -> str:
        return str(json.loads(self.file("../record.json"))["attempts"][0]["handle"]["ref"]["call"])

    def file(self, name: str) -> bytes:
        path = os.path.normpath(f"runs/{self.id}/run/{name}")
        content: bytes = self.server._fetch("GET", f"/volumes/ftl/files/{path}")
        return content

    def newest(self) -> int:
        """The step of the newest checkpoint that is committed; 0 before the first."""
        prefix = f"runs/{self.id}/run/checkpoints/checkpoint-"
        tree = self.server.volume("ftl")["tree"]
        found = [p for p in tree if p.startswith(prefix) and p.endswith("/manifest.json")]
        return max((int(p.removeprefix(prefix).partition("/")[0]) for p in found), default=0)

    def container_after(self, step: int, attempt: int) -> str:
        """The container of the nth start, once it has committed a checkpoint newer than `step`."""
        container = self.server.wait_for_container(self.call, attempt=attempt, timeout_s=240)
        self.server.wait_until(lambda _: self.newest() > step, f"a checkpoint after {step}", 240)
        return container


def test_training_that_loses_its_container_four_times_equals_the_local_one(
    modal_server: ModalEmulator, tmp_path: Path
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    config = make_project(tmp_path / "project", num_epochs=8, save_steps=5)
    cloud = tmp_path / "modal.yml"
    cloud.write_text(CLOUD)
    changed = ("--learning-rate", "2e-3")
    ftl("train", config, *changed, "--output-dir", tmp_path / "straight", state=here)
    (local,) = [path.parent for path in here.glob("runs/*/events.jsonl")]

    submitted = ftl(
        "train",
        config,
        "--cloud",
        cloud,
        *changed,
        "--output-dir",
        tmp_path / "tried",
        "--detach",
        "--json",
        state=here,
    )
    run = Run(modal_server, json.loads(submitted.stdout.splitlines()[-1])["run"])
    step = 0
    for number, end in enumerate(("preempt", "preempt", "time", "kill"), 1):
        container = run.container_after(step, number)
        if end == "time":
            modal_server.advance(86400)
        else:
            {"preempt": modal_server.preempt, "kill": modal_server.kill}[end](container)
        modal_server.wait_until(lambda s, c=container: s["containers"][c]["state"] == "dead", f"{end} ends it", 240)
        assert run.newest() > step, "what was committed is not lost"
        step = run.newest()

    attached = ftl("attach", run.id, state=here)
    assert "train loss" in attached.stdout
    assert modal_server.ends(run.call) == ["preempted", "preempted", "timeout", "crashed", "success"]

    expected = losses((local / "events.jsonl").read_bytes())
    assert len(expected) > 100
    assert losses(run.file("events.jsonl")) == expected
    assert sha256(tmp_path / "tried/model.safetensors") == sha256(tmp_path / "straight/model.safetensors")
    attempts = {json.loads(line)["attempt"] for line in run.file("events.jsonl").splitlines()}
    assert attempts == {1, 2, 3, 4, 5}, "each start is an attempt of its own"

    logs = ftl("logs", run.id, "--cloud", cloud, state=elsewhere).stdout
    assert logs.encode().rstrip(b"\n") == run.file("log.txt").rstrip(b"\n")
    pulled = tmp_path / "pulled"
    ftl("pull", run.id, pulled, state=elsewhere)
    assert sha256(pulled / "model.safetensors") == sha256(tmp_path / "straight/model.safetensors")
    listed = map(json.loads, ftl("ps", "--json", "--cloud", cloud, state=elsewhere).stdout.splitlines())
    assert [line["state"] for line in listed if line["run"] == run.id] == ["done"]

    _effective_config_is_the_local_one(run, here)
    _nothing_secret_is_written_down(modal_server, here)


def _effective_config_is_the_local_one(run: Run, state: Path) -> None:
    record = json.loads((state / "runs" / run.id / "record.json").read_bytes())
    bundle = run.server._fetch("GET", f"/volumes/ftl/files/bundles/{record['bundle']['sha256']}.tar")
    with tarfile.open(fileobj=io.BytesIO(bundle)) as tar:
        member = tar.extractfile("config.json")
        assert member is not None
        config: dict[str, Any] = json.load(member)
    assert config["optim"]["learning_rate"] == 2e-3
    assert config == json.loads((Path(record["bundle"]["path"]) / "config.json").read_bytes())


def _nothing_secret_is_written_down(server: ModalEmulator, state: Path) -> None:
    for rpc in ("ImageGetOrCreate", "FunctionCreate", "FunctionMap", "AppPublish"):
        assert SECRET not in str(server.requests(rpc)), rpc
    assert SECRET not in server.log_text()
    for name in ("ftl", "ftl-cache"):
        assert not [path for path, content in server.committed(name).items() if SECRET.encode() in content]
    assert not [p for p in state.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]
