"""A real Ray of this machine starts the ranks: they go on as one process would, stop when asked, and leave nothing.

It takes Ray a dozen processes and a minute of CPU time, so everything is asked of one start.
"""

import json
import signal
import subprocess
import time

import pytest

from ftl.errors import BackendError
from ftl_runtime.parallel.raydriver import _ending, _fitting
from ftl_runtime.rendezvous import Rendezvous
from ftl_runtime.runlog import RunLog
from ftl_runtime.spawn import ray_driver
from ftl_runtime.verdict import Verdict

pytestmark = pytest.mark.torch

COMMON = {"optim__max_steps": 12, "data__val_set_size": 7, "output__eval_strategy": "no", "output__save_steps": 4}
TIMEOUT_S = 500


def test_two_workers_resume_report_checkpoints_stop_and_leave_no_process(make_attempt, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ADDRESS", "local")
    alone, attempt = (make_attempt(name, optim__micro_batch_size=2, **COMMON) for name in ("alone", "ray"))
    alone.train()
    attempt.train(stop_at=2)
    attempt.config |= {"ray": {"is_used": True, "num_workers": 2, "run_name": "tale"}}
    attempt.config["optim"]["micro_batch_size"] = 1
    process = attempt.start({"event": "step", "sleep": 0.5})
    until = time.monotonic() + TIMEOUT_S
    while process.poll() is None and max(attempt.losses()) < 5 and time.monotonic() < until:
        time.sleep(0.1)
    members = _members(process.pid)
    process.send_signal(signal.SIGTERM)
    assert attempt.finish(process, timeout_s=TIMEOUT_S) == 75, attempt.output
    step = attempt.events("stopped")[-1]["data"]["step"]
    assert 5 <= step < 12
    assert attempt.exit_record()["message"] == f"stopped at step {step} of 12; it can be resumed from there"
    assert list(attempt.losses().values()) == pytest.approx(list(alone.losses().values())[:step], rel=1e-5)
    assert [event["data"]["step"] for event in attempt.events("resumed")] == [2]
    states = (attempt.run / f"checkpoints/checkpoint-{step}").glob("rng_state*")
    assert sorted(file.name for file in states) == ["rng_state_0.pth", "rng_state_1.pth"]
    _expect_reported(attempt.run, [4, step])
    assert len(members) > 5  # the driver, Ray's own and the ranks
    assert [pid for pid in members if _is_alive(pid)] == []


def _expect_reported(run, steps: list[int]) -> None:
    """What Ray itself finds in the directory of the run: the checkpoints, whole, with their metrics."""
    snapshot = json.loads((run / "ray/tale/checkpoint_manager_snapshot.json").read_text())
    reported = {entry["checkpoint_dir_name"]: entry["metrics"] for entry in snapshot["checkpoint_results"]}
    assert list(reported) == [f"checkpoint-{step}" for step in steps]
    assert [metrics["step"] for metrics in reported.values()] == steps
    assert all(metrics["loss"] > 0 for metrics in reported.values())
    for name in reported:
        files = [{file.name: file.stat().st_ino for file in (run / place / name).iterdir()} for place in PLACES]
        assert files[0] == files[1]  # the same files, so that they take no room


PLACES = ("checkpoints", "ray/tale")


def _members(supervisor: int) -> list[int]:
    """The processes of the session that the supervisor's only trainer began."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid=,sid="], capture_output=True, text=True, check=True).stdout
    rows = [tuple(int(word) for word in line.split()) for line in listing.splitlines()]
    leaders = {pid for pid, parent, session in rows if parent == supervisor and pid == session}
    return [pid for pid, _, session in rows if session in leaders]


def _is_alive(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


@pytest.mark.parametrize(
    ("wanted", "total", "expected"),
    [
        (None, {"CPU": 8.0, "GPU": 2.0}, {"GPU": 1}),
        (None, {"CPU": 8.0}, {"CPU": 1}),
        ({"CPU": 4, "nodes_of_mine": 0.5}, {"CPU": 8.0, "nodes_of_mine": 1.0}, {"CPU": 4, "nodes_of_mine": 0.5}),
    ],
    ids=["gpus", "no gpus", "as asked"],
)
def test_workers_take_a_gpu_where_there_are_any(wanted, total, expected):
    assert _fitting(wanted, 2, total) == expected


def test_workers_that_the_cluster_has_no_room_for_are_refused():
    told = "ray_num_workers: 4: they need 4 GPU, and the Ray cluster has 2 GPU; lower it"
    with pytest.raises(BackendError, match=told):
        _fitting({"GPU": 1}, 4, {"CPU": 8.0, "GPU": 2.0})


def test_several_supervisors_of_one_ray_job_are_refused(tmp_path):
    with pytest.raises(BackendError, match="this job was started on 2 of them"):
        ray_driver(tmp_path / "job.json", Rendezvous(2, 0, "a"), {}, RunLog(tmp_path / "log.txt"), ())


STOPPED = (75, b'{"exit_code": 75, "cause": "signal", "message": "stopped"}\n')
BROKEN = (2, b'{"exit_code": 2, "cause": "config", "message": "no such base"}\n')


@pytest.mark.parametrize(
    ("told", "failure", "expected"),
    [
        ([STOPPED, STOPPED], None, Verdict(75, "signal", "stopped")),
        ([STOPPED, BROKEN], RuntimeError("rank 1"), Verdict(2, "config", "no such base")),
        ([(-9, b"")], RuntimeError("rank 0"), -9),
        ([], RuntimeError("a node died\nin detail"), Verdict(75, "lost", "Ray lost a worker: a node died")),
        ([], None, None),
    ],
    ids=["stopped", "one is broken", "killed", "machine lost", "never started"],
)
def test_attempt_ends_as_its_first_broken_rank(told, failure, expected):
    assert _ending(told, failure) == expected
