"""The supervisors of two machines, with a run directory each and ranks that train nothing: who stops, who ends how."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ftl.contract import JobSpec, Paths
from ftl_runtime.rendezvous import free_port

ROOT = Path(__file__).parents[2]
ALIVE = {"start": True, "stand_in": {"num_steps": 2000}}


class Machines:
    def __init__(self, root):
        self.root = root
        self.processes = []

    def run_dir(self, node):
        return self.root / f"run-{node}"

    def start(self, *ranks, nodes=(0, 1), **spec):
        """The supervisors; `ranks` are the faults of each machine's rank, `spec` what is in the jobs of both, or in
        that of one as a pair of (node, value)."""
        self.processes, port = [], str(free_port())
        for node in nodes:
            run_dir = self.run_dir(node)
            run_dir.mkdir(exist_ok=True)
            paths = Paths(bundle=str(self.root / "bundle"), run=str(run_dir), cache=str(self.root / "cache"))
            own = {key: value for key, value in spec.items() if not isinstance(value, tuple)}
            own |= {key: value[1] for key, value in spec.items() if isinstance(value, tuple) and value[0] == node}
            job = JobSpec(run_id="tiny", paths=paths, **own)
            (run_dir / "job.json").write_text(job.model_dump_json())
            place = {"NNODES": "2", "NODE_RANK": str(node), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            path = (ROOT / "launcher", ROOT / "runtime", Path(__file__).parent / "inject")
            faults = json.dumps([ranks[node] if ranks else ALIVE])
            env = place | {"PYTHONPATH": ":".join(map(str, path)), "FTL_TEST_INJECT": faults}
            command = [sys.executable, "-m", "ftl_runtime", str(run_dir / "job.json")]
            with (run_dir / "output.txt").open("wb") as output:
                self.processes.append(
                    subprocess.Popen(command, env={**os.environ, **env}, stdout=output, stderr=subprocess.STDOUT)
                )

    def wait_for_step(self):
        self.wait_until(lambda: b'"step"' in self.events())

    def wait_until(self, is_so, timeout_s=60):
        give_up = time.monotonic() + timeout_s
        while not is_so():
            assert time.monotonic() < give_up, self.told()
            time.sleep(0.02)

    def events(self):
        path = self.run_dir(0) / "events.jsonl"
        return path.read_bytes() if path.exists() else b""

    def event(self, name):
        """The data of the last one."""
        found = [json.loads(line) for line in self.events().splitlines()]
        return [one["data"] for one in found if one["event"] == name][-1]

    def trainer(self, node):
        pid = self.processes[node].pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def ends(self):
        """(exit code, cause, message) of each machine, whose supervisor returns that code."""
        found = []
        for node, process in enumerate(self.processes):
            code = process.wait(60)
            record = json.loads((self.run_dir(node) / ("exit-1.json" if node else "exit.json")).read_text())
            assert record["exit_code"] == code
            found.append((code, record["cause"], record["message"]))
        return found

    def told(self):
        return [(self.run_dir(node) / "output.txt").read_text() for node in range(len(self.processes))]


@pytest.fixture
def machines(tmp_path):
    found = Machines(tmp_path)
    yield found
    for process in found.processes:
        process.kill()
        process.wait()


def test_signal_to_the_second_machine_stops_both_at_the_same_step(machines):
    machines.start()
    machines.wait_for_step()
    machines.processes[1].send_signal(signal.SIGTERM)
    first, second = machines.ends()
    assert first == second
    assert first[:2] == (75, "signal")
    step = machines.event("stopped")["step"]
    assert first[2] == f"stopped at step {step}"
    assert machines.event("stopping")["reason"] == "signal"


def test_deadline_of_the_second_machine_is_one_for_both(machines):
    machines.start(timeout_s=(1, 4), grace_s=1)
    assert [end[:2] for end in machines.ends()] == [(75, "deadline")] * 2


def test_signal_to_one_machine_before_training_ends_both(machines):
    hangs = {"start": True, "stand_in": {"waits_s": 600}}
    machines.start(hangs, hangs)
    machines.wait_until(lambda: all(_has_child(process) for process in machines.processes))
    time.sleep(0.5)
    machines.processes[0].send_signal(signal.SIGTERM)
    assert [end[:2] for end in machines.ends()] == [(75, "signal")] * 2
    assert machines.event("stopped") == {"step": 0, "checkpoint": None}


def _has_child(process):
    return bool(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())


@pytest.mark.parametrize("node", [0, 1])
def test_killed_trainer_is_a_lost_machine_for_the_other(machines, node):
    machines.start()
    machines.wait_for_step()
    os.kill(machines.trainer(node), signal.SIGKILL)
    ends = machines.ends()
    assert ends[node][:2] == (137, "killed")
    assert ends[1 - node][:2] == (75, "lost")
    assert ends[1 - node][2].startswith(f"machine {node}: the trainer was killed (SIGKILL)")


def test_killed_supervisor_is_a_lost_machine(machines):
    machines.start()
    machines.wait_for_step()
    machines.processes[1].kill()
    machines.processes.pop()
    assert machines.ends() == [(75, "lost", "machine 1 is gone")]


def test_what_is_wrong_on_one_machine_ends_both_with_its_sentence_and_its_last_words(machines):
    machines.start(ALIVE, {"start": True, "stand_in": {"fails": "base_model: is not there"}})
    first, second = machines.ends()
    assert second == (2, "config", "base_model: is not there")
    assert first == (2, "config", "machine 1: base_model: is not there")
    assert machines.event("error") == {"cause": "config", "message": first[2]}
    assert (
        "The log of machine 1 ends with:\nthe last words of a rank\n" in (machines.run_dir(0) / "log.txt").read_text()
    )


def test_finished_run_is_done_for_a_machine_that_has_no_result(machines):
    machines.run_dir(0).mkdir()
    (machines.run_dir(0) / "result.json").write_text("{}")
    machines.start()
    assert machines.ends() == [(0, "done", None)] * 2
    assert machines.events() == b""


def test_training_to_its_end_is_done_on_both(machines):
    short = {"start": True, "stand_in": {"num_steps": 3}}
    machines.start(short, short)
    assert machines.ends() == [(0, "done", None)] * 2


def test_signal_while_a_machine_waits_for_the_other_ends_it(machines):
    machines.start(nodes=(0,))
    machines.wait_until(lambda: (machines.run_dir(0) / "log.txt").exists())
    machines.processes[0].send_signal(signal.SIGTERM)
    assert machines.ends() == [(75, "signal", "stopped before training started")]
