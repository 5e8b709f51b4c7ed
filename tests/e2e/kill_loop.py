"""Kills a part of a running job with SIGKILL at random moments, again and again, and proves that nothing was lost.

    .venv/bin/python tests/e2e/kill_loop.py --victim trainer --times 20
    .venv/bin/python tests/e2e/kill_loop.py --victim container --times 20 --cloud docker.yml

Victims: trainer, supervisor, launcher, and with Docker the container. After the last kill the run is led to its end;
then every loss that any attempt logged and the final weights must equal those of an uninterrupted run, bit for bit.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from project import make_project

FTL = [sys.executable, "-c", "from ftl.cli import main; main()"]
DOCKER = os.environ.get("FTL_DOCKER_CLIENT", "docker")


@dataclass
class Tally:
    """What happened over all runs of a loop."""

    kills: int = 0
    runs: int = 0
    resumes: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    """The last event before each kill: what the kill hit."""


class Loop:
    """Repeated kills of one kind of victim over as many runs as they take."""

    def __init__(self, root: Path, victim: str, cloud: Path | None, seed: int, num_epochs: int) -> None:
        self.root, self.victim, self.cloud = root, victim, cloud
        self.random = random.Random(seed)
        self.state = root / "state"
        self.env = {**os.environ, "FTL_STATE_DIR": str(self.state), "FTL_CACHE_DIR": str(root / "cache")}
        self.env |= {"OMP_NUM_THREADS": "1"}
        self.config = make_project(root / "project", num_epochs=num_epochs)
        self.tally = Tally()

    def run(self, times: int) -> Tally:
        expected = self._uninterrupted()
        while self.tally.kills < times:
            assert self.tally.runs < 2 * times + 3, f"only {self.tally.kills} kills hit in {self.tally.runs} runs"
            self._one_run(times, expected)
        return self.tally

    def _uninterrupted(self) -> tuple[dict[int, float], str]:
        run_id = self._train().wait_for_id()
        self._lead_to_end(run_id)
        return self._losses(run_id), self._weights(run_id)

    def _one_run(self, times: int, expected: tuple[dict[int, float], str]) -> None:
        self.tally.runs += 1
        follower = self._train()
        run_id = follower.wait_for_id()
        while self.tally.kills < times and not self._done(run_id):
            self._wait_for_a_moment(run_id)
            moment = self._last_event(run_id)
            if self._kill(run_id, follower):
                self.tally.kills += 1
                self.tally.moments[moment] += 1
            follower = self._follow_again(run_id, follower)
        self._lead_to_end(run_id, follower)
        losses, weights = self._losses(run_id), self._weights(run_id)
        assert losses == expected[0], f"run {run_id}: losses differ at steps {_differences(losses, expected[0])}"
        assert weights == expected[1], f"run {run_id}: the final weights differ"

    def _wait_for_a_moment(self, run_id: str) -> None:
        """A random moment: one in four anywhere from the start of the attempt, the others while it trains and saves."""
        if self.random.random() < 0.25:
            time.sleep(self.random.uniform(0.2, 6.0))
            return
        before = len(self._events(run_id))
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not self._done(run_id):
            if any(event["event"] == "step" for event in self._events(run_id)[before:]):
                break
            time.sleep(0.02)
        time.sleep(self.random.uniform(0.0, 1.5))

    def _train(self) -> "Follower":
        cloud = ["--cloud", str(self.cloud)] if self.cloud else []
        return Follower([*FTL, "train", str(self.config), "--json", *cloud], self.env, self.root)

    def _follow_again(self, run_id: str, follower: "Follower") -> "Follower":
        """A live follower: the old one, or an `attach` to a run that goes on, or a `resume` of one that ended."""
        if follower.process.poll() is None:
            return follower
        if self._done(run_id):
            return follower
        attached = Follower([*FTL, "attach", run_id, "--json"], self.env, self.root)
        time.sleep(1.5)
        if attached.process.poll() is None:
            return attached
        self.tally.resumes += 1
        return Follower([*FTL, "resume", run_id, "--json"], self.env, self.root)

    def _lead_to_end(self, run_id: str, follower: "Follower | None" = None) -> None:
        deadline = time.monotonic() + 300
        while not (self._done(run_id) and (follower is None or follower.process.poll() is not None)):
            assert time.monotonic() < deadline, f"run {run_id} does not end: {self._log_tail(run_id)}"
            if follower is not None:
                follower = self._follow_again(run_id, follower)
            time.sleep(0.2)

    def _kill(self, run_id: str, follower: "Follower") -> bool:
        """Send SIGKILL to the victim; False when there was none to hit."""
        if self.victim == "launcher":
            pids = [follower.process.pid] if follower.process.poll() is None else []
        elif self.victim == "container":
            pids = []
            container = self._container(run_id)
            if container:
                subprocess.run([DOCKER, "kill", "-s", "KILL", container], capture_output=True, check=False)
                return True
        else:
            pids = self._processes(run_id)
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                return False
        return bool(pids)

    def _processes(self, run_id: str) -> list[int]:
        wanted = " -m ftl_runtime.rank " if self.victim == "trainer" else " -m ftl_runtime "
        if self.cloud:
            container = self._container(run_id)
            command = [DOCKER, "top", container, "-eww", "-o", "pid,args"] if container else ["true"]
        else:
            command = ["ps", "-eww", "-o", "pid,args"]
        listing = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        needle = "/job.json" if self.cloud else f"{run_id}/job.json"
        found = [line.split(None, 1) for line in listing.splitlines() if wanted in line and line.endswith(needle)]
        return [int(pid) for pid, args in found if "python" in args.split()[0]]

    def _container(self, run_id: str) -> str:
        command = [DOCKER, "ps", "-q", "--filter", f"label=io.ftl.run={run_id}"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    def _done(self, run_id: str) -> bool:
        return (self.state / "runs" / run_id / "result.json").exists()

    def _events(self, run_id: str) -> list[dict[str, object]]:
        path = self.state / "runs" / run_id / "events.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def _last_event(self, run_id: str) -> str:
        events = self._events(run_id)
        data = events[-1]["data"] if events else {}
        assert isinstance(data, dict)
        return (
            f"{events[-1]['event']} {data.get('name') or data.get('state') or ''}".strip() if events else "nothing yet"
        )

    def _losses(self, run_id: str) -> dict[int, float]:
        losses: dict[int, float] = {}
        for event in self._events(run_id):
            data = event["data"]
            assert isinstance(data, dict)
            if event["event"] == "step":
                step, loss = int(data["step"]), float(data["loss"])
                assert losses.setdefault(step, loss) == loss, f"run {run_id}: step {step} has two losses"
        return losses

    def _weights(self, run_id: str) -> str:
        path = self.state / "runs" / run_id / "output" / "model.safetensors"
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def _log_tail(self, run_id: str) -> str:
        path = self.state / "runs" / run_id / "log.txt"
        return path.read_text()[-2000:] if path.exists() else "no log"


class Follower:
    """An `ftl` process that follows a run; its output goes to a file."""

    def __init__(self, command: list[str], env: dict[str, str], root: Path) -> None:
        self.output = Path(tempfile.mkstemp(dir=root, suffix=".out")[1])
        with self.output.open("w") as file:
            self.process = subprocess.Popen(command, env=env, stdout=file, stderr=subprocess.STDOUT, cwd=root)

    def wait_for_id(self, limit_s: float = 60) -> str:
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            for line in self.output.read_text().splitlines():
                if line.startswith('{"run"'):
                    return str(json.loads(line)["run"])
            assert self.process.poll() in (None, 0), self.output.read_text()
            time.sleep(0.05)
        raise AssertionError(f"no run id: {self.output.read_text()}")


def _differences(found: dict[int, float], expected: dict[int, float]) -> list[int]:
    return [step for step in sorted(found.keys() | expected.keys()) if found.get(step) != expected.get(step)][:10]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--victim", choices=["trainer", "supervisor", "launcher", "container"], required=True)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--cloud", type=Path, help="a docker cloud file; this machine without one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-epochs", type=int, default=24, help="20 optimizer steps each")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        cloud = given.cloud.absolute() if given.cloud else None
        tally = Loop(Path(root), given.victim, cloud, given.seed, given.num_epochs).run(given.times)
    print(
        f"{given.victim}: {tally.kills} kills over {tally.runs} runs, {tally.resumes} times `ftl resume`; "
        "all losses and weights equal"
    )
    for moment, count in tally.moments.most_common():
        print(f"  {count:3d} x after: {moment}")


if __name__ == "__main__":
    main()
