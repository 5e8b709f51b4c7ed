"""A run from its start to its removal, through the command line alone."""

import hashlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pexpect
import pytest
from commandline import Ftl, run_ids
from project import make_project


def wait_for_step(state: Path, run_id: str, step: int, limit_s: float = 60) -> None:
    events = state / "runs" / run_id / "events.jsonl"
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        lines = events.read_text().splitlines() if events.exists() else []
        if any(e["event"] == "step" and e["data"]["step"] >= step for e in map(json.loads, lines)):
            return
        time.sleep(0.05)
    raise AssertionError(f"step {step} was not reached in {limit_s} s")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def steps(state: Path, run_id: str) -> dict[int, float]:
    lines = (state / "runs" / run_id / "events.jsonl").read_text().splitlines()
    return {e["data"]["step"]: e["data"]["loss"] for e in map(json.loads, lines) if e["event"] == "step"}


def test_run_that_is_stopped_and_resumed_equals_the_one_that_was_not(ftl: Ftl, tmp_path: Path, own_state: Path) -> None:
    config = make_project(tmp_path / "project", num_epochs=5, save_steps=1000)
    straight = ftl("train", config, "--output-dir", tmp_path / "straight")
    assert straight.returncode == 0, straight.stderr
    (first,) = run_ids(ftl)

    assert ftl("train", config, "--detach", "--output-dir", tmp_path / "resumed").returncode == 0
    (second,) = set(run_ids(ftl)) - {first}
    wait_for_step(own_state, second, 8)
    stopped = ftl("stop", second[:5])
    assert stopped.returncode == 0, stopped.stderr
    assert "is verified" in stopped.stderr
    assert json.loads((own_state / "runs" / second / "exit.json").read_text())["exit_code"] == 75
    assert 8 <= max(steps(own_state, second)) < 100, "it was stopped on its way"

    resumed = ftl("resume", second[:5])
    assert resumed.returncode == 0, resumed.stderr
    assert steps(own_state, second) == steps(own_state, first)
    weights = "model.safetensors"
    assert sha256(tmp_path / "resumed" / weights) == sha256(tmp_path / "straight" / weights)


def test_finished_run_can_be_read_pulled_and_removed_from_another_shell(
    ftl: Ftl, project: Path, tmp_path: Path, own_state: Path
) -> None:
    trained = ftl("train", project / "cfg.yml")
    assert trained.returncode == 0, trained.stderr
    assert "train loss" in trained.stdout
    (run_id,) = run_ids(ftl)
    prefix = run_id[:4]

    attached = ftl("attach", prefix)
    assert attached.returncode == 0
    assert "step 1/" in attached.stdout, "everything from the start is shown again"
    pulled = ftl("pull", prefix, tmp_path / "copy")
    assert pulled.returncode == 0, pulled.stderr
    assert sha256(tmp_path / "copy/model.safetensors") == sha256(project / "out/model.safetensors")
    again = ftl("resume", prefix)
    assert again.returncode == 4
    assert "is done" in again.stderr

    removed = ftl("rm", prefix)
    assert removed.returncode == 0, removed.stderr
    assert list((own_state / "runs").iterdir()) == []
    assert list((own_state / "bundles").iterdir()) == []
    assert (project / "out/model.safetensors").exists(), "what was delivered stays"


def test_same_config_twice_shares_one_bundle(ftl: Ftl, project: Path, own_state: Path) -> None:
    for _ in range(2):
        assert ftl("train", project / "cfg.yml", "--max-steps", "1").returncode == 0
    assert len(run_ids(ftl)) == 2
    assert len(list((own_state / "bundles").iterdir())) == 1


def test_json_output_is_one_object_a_line(ftl: Ftl, project: Path) -> None:
    done = ftl("train", project / "cfg.yml", "--max-steps", "3", "--json")
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    assert [o["state"] for o in objects if "run" in o] == ["submitted", "done"]
    assert [o["data"]["step"] for o in objects if o.get("event") == "step"] == [1, 2, 3]


def test_override_reaches_the_training(ftl: Ftl, project: Path, own_state: Path) -> None:
    done = ftl("train", project / "cfg.yml", "--max-steps", "2", "--learning-rate", "5e-5", "--set", "warmup_steps=0")
    assert done.returncode == 0, done.stderr
    (run_id,) = run_ids(ftl)
    lines = (own_state / "runs" / run_id / "events.jsonl").read_text().splitlines()
    rates = [e["data"]["lr"] for e in map(json.loads, lines) if e["event"] == "step"]
    assert rates[0] == pytest.approx(5e-5)
    assert len(rates) == 2


def test_ctrl_c_detaches_and_the_run_goes_on(ftl: Ftl, ftl_program: str, tmp_path: Path, own_state: Path) -> None:
    config = make_project(tmp_path / "project", num_epochs=400)
    terminal = pexpect.spawn(ftl_program, ["train", str(config)], env=dict(os.environ), dimensions=(24, 100))
    terminal.expect("Ctrl-C stops following")
    terminal.expect(r"checkpoint saved and verified", timeout=240)  # a busy machine takes its time
    terminal.sendintr()
    terminal.expect("goes on without this terminal")
    terminal.expect("ftl attach")
    terminal.expect("ftl stop")
    terminal.wait()
    assert terminal.exitstatus == 130
    (run_id,) = run_ids(ftl)
    reached = max(steps(own_state, run_id))
    wait_for_step(own_state, run_id, reached + 5)
    refused = ftl("rm", run_id)
    assert refused.returncode == 4
    assert "is running" in refused.stderr
    assert ftl("rm", run_id, "--force").returncode == 0


def test_killed_launcher_leaves_a_run_that_another_follows_to_its_end(
    ftl: Ftl, ftl_program: str, project: Path, own_state: Path
) -> None:
    launcher = subprocess.Popen([ftl_program, "train", str(project / "cfg.yml")], stdout=subprocess.DEVNULL)
    while not (ids := run_ids(ftl)):
        time.sleep(0.1)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    attached = ftl("attach", ids[0])
    if attached.returncode != 0:  # killed before the job was accepted
        attached = ftl("resume", ids[0])
    assert attached.returncode == 0, attached.stderr
    assert (project / "out/model.safetensors").exists()


def test_completion_offers_run_ids_and_commands(ftl: Ftl, project: Path) -> None:
    assert ftl("train", project / "cfg.yml", "--max-steps", "1").returncode == 0
    (run_id,) = run_ids(ftl)
    offered = ftl(_FTL_COMPLETE="complete_bash", COMP_WORDS=f"ftl attach {run_id[:3]}", COMP_CWORD="2")
    assert run_id in offered.stdout
    commands = ftl(_FTL_COMPLETE="complete_bash", COMP_WORDS="ftl res", COMP_CWORD="1")
    assert commands.stdout.split() == ["resume"]
