"""`ftl` on a real cluster through SkyPilot's real server: Slurm with two nodes on this machine (.ci/slurm-lab.sh).

Slow: what it covers no other test can is the way through ssh, sbatch and srun, ranks on several machines, a managed job
that loses its machine, a run that comes from a container, and a second computer at the same server. `make e2e-sky` runs
it. One run of SkyPilot is there at a time: its daemon begins by killing those of other clusters of the same user and
machine, takes their port, and each is started again every 5 s to find it taken, at 3 s of CPU.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from canaries import below, forms, leaks
from docker_places import build_cpu_image
from project import make_project
from sky_places import make_home
from sky_server import SkyServer

pytestmark = [pytest.mark.slurm, pytest.mark.torch]
LAB = Path(os.environ.get("FTL_SLURM_DIR") or "/var/tmp/ftl-slurm")
CANARY = "canary-3f9d1c07b2a84e56"
OTHER_USER = "0badcafe"
_WAIT_S = 1500
"""No bound to keep to: it is for a machine that does much besides."""
_DIVERGED, _STOPPED, _ENVIRONMENT, _NO = 71, 75, 3, 4  # the README's table


class Computer:
    """One that has `ftl`, with a state of its own."""

    def __init__(self, env: dict[str, str], state: Path) -> None:
        own = {"CANARY": CANARY, "COLUMNS": "100", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        own |= {"PYTHONPATH": os.pathsep.join(sys.path)}
        places = {"FTL_STATE_DIR": str(state), "FTL_CACHE_DIR": str(state / "cache")}
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SKYPILOT_"))}
        self.state, self._env = state, kept | env | own | places
        self._started: list[subprocess.Popen[str]] = []

    def start(self, folder: Path, *arguments: str) -> "subprocess.Popen[str]":
        """Start `ftl ...` there; what it says goes to the file `said`."""
        with (folder / "said").open("a") as said:
            process = subprocess.Popen(
                self._command(arguments), env=self._env, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                text=True,
            )  # fmt: skip
        self._started.append(process)
        return process

    def run(self, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = self._command(arguments)
        return subprocess.run(
            command, env=self._env, cwd=folder, timeout=_WAIT_S, capture_output=True, text=True, check=False
        )

    def listed(self, folder: Path) -> dict[str, dict[str, Any]]:  # Any: JSON
        """What `ftl ps` says of each run that anyone has launched."""
        told = self.run(folder, "ps", "--json", "--cloud", "cloud.yml")
        assert told.returncode == 0, told.stderr
        return {line["run"]: line for line in map(json.loads, told.stdout.splitlines())}

    def end(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-c", "from ftl.cli import main; main()", *arguments]


@dataclass
class Launched:
    """A project that is being trained."""

    folder: Path
    process: "subprocess.Popen[str]"
    computer: Computer

    @property
    def run(self) -> Path:
        """Its run directory; the name of the project ends the run's id."""
        (run,) = (path for path in (self.computer.state / "runs").glob(f"*-{self.folder.name}") if path.is_dir())
        return run

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    @property
    def slurm_jobs(self) -> list[str]:
        return slurm_jobs(self.run.name[:6])

    def has_begun(self) -> bool:
        """Whether it has told of anything."""
        return any((self.computer.state / "runs").glob(f"*-{self.folder.name}/events.jsonl"))

    def is_accepted(self) -> bool:
        """Whether its record says that SkyPilot has it."""
        records = list((self.computer.state / "runs").glob(f"*-{self.folder.name}/record.json"))
        return bool(records) and '"request"' in records[0].read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SkyServer]:
    if not (LAB / "slurm_ssh_config").exists():
        pytest.skip("needs the Slurm cluster of .ci/slurm-lab.sh")
    home = make_home(tmp_path_factory.mktemp("sky"))
    (home / ".slurm").mkdir()
    shutil.copy(LAB / "slurm_ssh_config", home / ".slurm/config")
    # The controller of managed jobs is the server itself; elsewhere it would be a machine that is rented.
    server = SkyServer(home, config={"allowed_clouds": ["slurm"], "jobs": {"controller": {"consolidation_mode": True}}})
    try:
        server.start()
        yield server
    finally:
        server.kill()
        subprocess.run(["scancel", "--user=skyslurm"], check=True)  # of a test that failed half way


@pytest.fixture(scope="module")
def shared() -> Iterator[Path]:
    """A directory that both nodes mount, of their user's own."""
    folder = LAB / "shared" / f"test-{os.getpid()}"
    folder.mkdir(parents=True)
    shutil.chown(folder, "skyslurm", "skyslurm")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def here(server: SkyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Computer]:
    computer = Computer(server.client_env, tmp_path_factory.mktemp("here"))
    yield computer
    computer.end()


@pytest.fixture(scope="module")
def elsewhere(server: SkyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Computer]:
    """The computer of another user of the same server and cluster, which knows nothing of the runs."""
    home = make_home(tmp_path_factory.mktemp("other"))
    (home / ".slurm").mkdir()
    shutil.copy(LAB / "slurm_ssh_config", home / ".slurm/config")
    (home / ".sky/user_hash").write_text(OTHER_USER)
    env = {name: value for name, value in server.client_env.items() if name != "SKYPILOT_API_SERVER_LOCAL_PORT"}
    env |= {"HOME": str(home), "SKYPILOT_API_SERVER_ENDPOINT": f"http://127.0.0.1:{server.port}"}
    computer = Computer(env, tmp_path_factory.mktemp("elsewhere"))
    yield computer
    computer.end()


Train = Callable[..., Launched]


@pytest.fixture(scope="module")
def train(here: Computer, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Starts a run of `here` in a project of that name, by that cloud file; without one on this machine."""
    root = tmp_path_factory.mktemp("projects")

    def start(name: str, cloud: dict[str, Any] | None, num_rows: int = 48, **config: object) -> Launched:
        make_project(root / name, num_rows=num_rows, **config)  # type: ignore[arg-type]  # pytest's own checks these
        more = ()
        if cloud is not None:
            write_cloud(root / name, **cloud)
            more = ("--cloud", "cloud.yml")
        return Launched(root / name, here.start(root / name, "train", "cfg.yml", *more), here)

    return start


LONG: dict[str, Any] = {"num_epochs": 80, "save_steps": 5}
"""Half a minute of training: long enough to lose its machine before its end."""
IN_A_CONTAINER = {"provider": "docker", "image": "cpu", "infra": None, "python": None}


@pytest.fixture(scope="module")
def straight(train: Train) -> Launched:
    """The run that stays where it began."""
    run = train("straight", None, **LONG)
    assert run.process.wait(_WAIT_S) == 0, run.said
    return run


@pytest.fixture(scope="module")
def watched(train: Train, shared: Path) -> Launched:
    """A run that only ends when it is stopped."""
    return train("watched", {"checkpoints": f"file://{shared}/store"}, num_epochs=4000, save_steps=500)


def remove(run: Launched) -> None:
    """Nothing of it is left, neither here nor on the cluster."""
    run_id = run.run.name
    removed = run.computer.run(run.folder, "rm", run_id, "--cloud", "cloud.yml")
    assert removed.returncode == 0, removed.stderr
    wait_for(lambda: not slurm_jobs(run_id[:6]), "its nodes to be let go")


def write_cloud(folder: Path, **keys: object) -> None:
    """The cloud file of a project; a key that is None is left out."""
    cloud = {
        "provider": "skypilot",
        "infra": "slurm/lab",
        "python": str(LAB / "python"),
        "env": {"OMP_NUM_THREADS": "1"},
        **keys,
    }
    kept = {key: value for key, value in cloud.items() if value is not None}
    (folder / "cloud.yml").write_text(json.dumps(kept))  # JSON is YAML


def slurm_jobs(token: str = "") -> list[str]:
    """The ids of the cluster's jobs that have not ended and have `token` in their names."""
    listed = subprocess.run(["squeue", "-h", "-o", "%i %T %j"], capture_output=True, text=True, check=True).stdout
    lines = [line.split(maxsplit=2) for line in listed.splitlines()]
    return [job for job, state, name in lines if state != "COMPLETING" and token in name]


def events(run: Path, name: str) -> list[dict[str, Any]]:  # Any: JSON
    """Data of the events of that name which this machine has: its own run's, or those that SkyPilot's log told."""
    files = [run / "events.jsonl", *sorted(run.glob("skypilot*/*.events"))]
    lines = [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines()]
    return [line["data"] for line in lines if line["event"] == name]


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def losses(run: Path) -> dict[int, float]:
    """Those of steps that only a lost machine has told of came with the checkpoint."""
    told_again = {step: loss for data in events(run, "history") for step, loss in data["train"]}
    return told_again | {data["step"]: data["loss"] for data in events(run, "step")}


def wait_for(condition: Callable[[], object], what: str, process: "subprocess.Popen[str] | None" = None) -> None:
    give_up = time.monotonic() + _WAIT_S
    while not condition():
        assert time.monotonic() < give_up, f"waited {_WAIT_S} s for {what}"
        assert process is None or process.poll() is None, f"ftl ended before {what}"
        time.sleep(0.5)


def test_managed_job_goes_on_after_its_machine_is_lost(train: Train, straight: Launched, shared: Path) -> None:
    cloud = {"recover": True, "controller": "local", "checkpoints": f"file://{shared}/store"}
    managed = train("managed", cloud, **LONG)
    wait_for(lambda: list(shared.glob("store/*/checkpoint-5")), "a checkpoint in the store", managed.process)
    (job,) = managed.slurm_jobs
    subprocess.run(["scancel", job], check=True)
    assert managed.process.wait(_WAIT_S) == 0, managed.said
    assert [data["step"] for data in events(managed.run, "resumed")]
    assert losses(managed.run) == losses(straight.run)
    remove(managed)


def test_two_machines_train_as_one_over_gloo(train: Train, shared: Path) -> None:
    """Bit for bit what two processes of one machine train."""
    two: dict[str, Any] = {"num_epochs": 1, "save_steps": 3}
    at_home = {"provider": "local", "processes": 2, "infra": None, "python": None, "env": None}
    one = train("here", at_home, **two)
    several = train("there", {"nodes": 2, "shared": str(shared), "secrets": ["CANARY"]}, **two)
    for run in (one, several):
        assert run.process.wait(_WAIT_S) == 0, run.said
    expected = losses(one.run)
    assert len(expected) > 2
    assert losses(several.run) == expected
    assert (several.folder / "out/model.safetensors").exists()
    (on_nodes,) = (shared / "runs").iterdir()
    assert {json.loads((on_nodes / f"exit{node}.json").read_text())["exit_code"] for node in ("", "-1")} == {0}
    remove(several)


def test_run_that_moved_from_a_container_equals_the_one_that_stayed(train: Train, straight: Launched) -> None:
    """A container has made a checkpoint before it was killed; losses and weights are the same bit for bit."""
    build_cpu_image()
    moved = train("moved", IN_A_CONTAINER, **LONG)
    wait_for(moved.has_begun, "the container", moved.process)

    def saved() -> list[int]:
        return [data["step"] for data in events(moved.run, "checkpoint") if data["state"] == "verified"]

    wait_for(saved, "a checkpoint in the container", moved.process)
    moved.process.kill()  # which would start it again
    containers = ["docker", "ps", "--quiet", "--filter", f"label=io.ftl.run={moved.run.name}"]
    (container,) = subprocess.run(containers, capture_output=True, text=True, check=True).stdout.split()
    subprocess.run(["docker", "kill", container], capture_output=True, check=True)
    newest = max(saved())
    write_cloud(moved.folder)
    gone_on = moved.computer.run(moved.folder, "resume", moved.run.name, "--cloud", "cloud.yml")
    assert gone_on.returncode == 0, gone_on.stderr
    assert f"the checkpoint of step {newest} goes along" in " ".join((gone_on.stdout + gone_on.stderr).split())
    assert [data["step"] for data in events(moved.run, "resumed")] == [newest]
    assert losses(moved.run) == losses(straight.run)
    assert sha256(moved.folder / "out/model.safetensors") == sha256(straight.folder / "out/model.safetensors")
    remove(moved)


def test_job_that_fails_is_reported_with_its_own_code(train: Train) -> None:
    failing = train("failing", {}, num_rows=24, num_epochs=1, loss_watchdog_threshold=0.001, loss_watchdog_patience=1)
    assert failing.process.wait(_WAIT_S) == _DIVERGED, failing.said
    assert "loss_watchdog_threshold" in failing.said
    remove(failing)


def test_run_whose_launcher_is_killed_is_followed_and_never_started_twice(watched: Launched) -> None:
    wait_for(watched.is_accepted, "SkyPilot to accept the run", watched.process)
    watched.process.kill()
    again = watched.computer.run(watched.folder, "resume", watched.run.name)
    assert again.returncode == _NO, again.stderr
    assert "ftl attach" in again.stderr
    watched.process = watched.computer.start(watched.folder, "attach", watched.run.name)
    wait_for(lambda: len(events(watched.run, "step")) > 2, "a few steps", watched.process)
    assert len(watched.slurm_jobs) == 1


def test_other_computer_at_the_same_server_sees_the_run_and_stops_it(
    watched: Launched, elsewhere: Computer, tmp_path: Path
) -> None:
    """Follows the test above."""
    run_id = watched.run.name
    write_cloud(tmp_path)
    wait_for(lambda: (elsewhere.listed(tmp_path)[run_id]["step"] or 0) > 2, "the run to be seen")
    assert elsewhere.listed(tmp_path)[run_id]["state"] == "running"
    assert "Streaming logs" in elsewhere.run(tmp_path, "logs", run_id, "--cloud", "cloud.yml").stdout
    stopped = elsewhere.run(tmp_path, "stop", run_id, "--cloud", "cloud.yml")
    assert stopped.returncode == 0, stopped.stderr
    assert "is verified" in stopped.stdout + stopped.stderr
    assert watched.process.wait(_WAIT_S) == _STOPPED, watched.said
    (told,) = events(watched.run, "stopped")
    assert told["checkpoint"] == told["step"]


def test_other_computer_goes_on_with_the_run_that_it_stopped(
    watched: Launched, elsewhere: Computer, tmp_path: Path
) -> None:
    """Follows the test above. What was sent to the run is in its store, beside the checkpoints."""
    run_id = watched.run.name
    (stopped,) = events(watched.run, "stopped")
    write_cloud(tmp_path)
    resumed = elsewhere.start(tmp_path, "resume", run_id, "--cloud", "cloud.yml")
    seen = elsewhere.state / "runs" / run_id
    wait_for(lambda: any(step > stopped["step"] for step in losses(seen)), "steps after those it had made", resumed)
    assert [data["step"] for data in events(seen, "resumed")] == [stopped["checkpoint"]]
    assert elsewhere.run(tmp_path, "stop", run_id).returncode == 0
    assert resumed.wait(_WAIT_S) == _STOPPED, (tmp_path / "said").read_text()
    remove(watched)


def test_job_that_waits_for_its_partition_says_so_until_it_is_stopped(here: Computer, tmp_path: Path) -> None:
    folder = tmp_path / "waiting"
    make_project(folder, num_rows=24)
    write_cloud(folder, infra="slurm/lab/nowhere")
    refused = here.run(folder, "train", "cfg.yml", "--cloud", "cloud.yml")
    assert refused.returncode == _ENVIRONMENT, refused.stderr
    assert "infra: Partition 'nowhere' not found" in " ".join(refused.stderr.split())
    write_cloud(folder, infra="slurm/lab/closed")
    started = here.run(folder, "train", "cfg.yml", "--cloud", "cloud.yml", "--detach", "--json")
    assert started.returncode == 0, started.stderr
    run_id = json.loads(started.stdout.splitlines()[-1])["run"]
    wait_for(lambda: "PartitionDown" in here.listed(folder)[run_id].get("message", ""), "the reason")
    stopped = here.run(folder, "stop", run_id)
    assert stopped.returncode == 0, stopped.stderr
    assert here.run(folder, "attach", run_id).returncode == _STOPPED
    wait_for(lambda: not slurm_jobs(run_id[:6]), "the job to be taken back")


def test_nothing_is_left_of_all_that(server: SkyServer, elsewhere: Computer, tmp_path: Path) -> None:
    """No job, no process, and of the secret of the run on two machines no trace on the disk of the server."""
    assert slurm_jobs() == []
    processes = subprocess.run(["ps", "-u", "skyslurm", "-o", "args="], capture_output=True, text=True, check=False)
    assert "ftl" not in processes.stdout
    write_cloud(tmp_path)
    told = elsewhere.listed(tmp_path)
    assert len(told) > 2
    assert {line["state"] for line in told.values()} <= {"done", "ended", "stopped"}
    assert leaks(below(server.home), list(forms(CANARY))) == []
