"""Two containers of the emulated Modal train as one, preempted once, and as two processes of this machine do.

Real: modal.clustered, its containers' entrypoint and handshake, supervisors that meet at the cluster's addresses, gloo.
Each container has a copy of the volume, and what one writes is not seen by the other.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from modal_emulator import ModalEmulator

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
from project import make_project

pytestmark = [pytest.mark.torch, pytest.mark.e2e]

ON_CPU = Path(__file__).parent / "cluster_on_cpu.py"
CLUSTER = "provider: modal\nimage: cpu\ngpu: H100:8\nnodes: 2\nprepare: false\n"
TOGETHER = "provider: local\nprocesses: 2\n"


def ftl(*arguments: str | Path, state: Path) -> str:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "FTL_STATE_DIR": str(state)}
    command = [sys.executable, str(ON_CPU), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=300)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def losses(events: bytes) -> dict[int, float]:
    steps = (json.loads(line) for line in events.splitlines() if line.endswith(b"}"))
    return {e["data"]["step"]: e["data"]["loss"] for e in steps if e["event"] == "step"}


def test_cluster_that_is_preempted_has_the_losses_of_two_processes_here(
    modal_server: ModalEmulator, tmp_path: Path
) -> None:
    config = make_project(tmp_path / "project", num_epochs=6, save_steps=2)
    (tmp_path / "together.yml").write_text(TOGETHER)
    (tmp_path / "cluster.yml").write_text(CLUSTER)
    ftl("train", config, "--cloud", tmp_path / "together.yml", "--output-dir", tmp_path / "here", state=tmp_path / "a")
    (local,) = (tmp_path / "a").glob("runs/*/events.jsonl")

    there = ("--cloud", tmp_path / "cluster.yml", "--output-dir", tmp_path / "there")
    submitted = ftl("train", config, *there, "--detach", "--json", state=tmp_path / "b")
    run = json.loads(submitted.splitlines()[-1])["run"]
    record = json.loads((tmp_path / "b/runs" / run / "record.json").read_bytes())
    call = record["attempts"][0]["handle"]["ref"]["call"]
    prefix = f"runs/{run}/run/"
    container = modal_server.wait_for_container(call, attempt=1, timeout_s=240)
    modal_server.wait_until(
        lambda _: f"{prefix}checkpoints/checkpoint-2/manifest.json" in modal_server.volume("ftl")["tree"],
        "a checkpoint",
        240,
    )
    modal_server.preempt(container)
    assert "train loss" in ftl("attach", run, state=tmp_path / "b")
    assert modal_server.ends(call) == ["preempted", "success"]

    committed = {
        path.removeprefix(prefix): content
        for path, content in modal_server.committed("ftl").items()
        if path.startswith(prefix)
    }
    expected = losses(local.read_bytes())
    assert len(expected) > 8
    assert losses(committed["events.jsonl"]) == expected
    assert json.loads(committed["result.json"])["ranks"] == 2
    assert (tmp_path / "there/model.safetensors").read_bytes() == (tmp_path / "here/model.safetensors").read_bytes()
    of_the_other = {path for path in committed if path.startswith("machines/")}
    assert of_the_other == {"machines/1/log.txt", "machines/1/exit.json"}
    assert json.loads(committed["machines/1/exit.json"])["exit_code"] == 0
    assert not [path for path in committed if "-1." in path]
    assert b"to those that do not see its disk: machine 1\n" in committed["log.txt"]
    resumed = [line for line in committed["events.jsonl"].splitlines() if b'"resumed"' in line]
    assert len(resumed) == 1
