"""`ftl` on a real cluster through SkyPilot's real server: Slurm with two nodes on this machine (.ci/slurm-lab.sh).

Slow: what it covers no other test can is the way through ssh, sbatch and srun, and ranks on several machines.
`make e2e-sky` runs it.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from canaries import below, forms, leaks
from project import make_project
from sky_places import make_home
from sky_server import SkyServer

pytestmark = [pytest.mark.slurm, pytest.mark.torch]
LAB = Path(os.environ.get("FTL_SLURM_DIR") or "/var/tmp/ftl-slurm")
CANARY = "canary-3f9d1c07b2a84e56"
_WAIT_S = 1500
"""No bound to keep to: it is for a machine that does much besides."""
Ftl = Callable[..., "subprocess.Popen[str]"]


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


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A directory that both nodes mount, of their user's own."""
    folder = LAB / "shared" / tmp_path.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.chown(folder, "skyslurm", "skyslurm")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def ftl(server: SkyServer, own_state: Path, tmp_path: Path) -> Iterator[Ftl]:
    """Start `ftl ...` in a folder; what it says goes to the file `said` there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= server.client_env | {"CANARY": CANARY, "COLUMNS": "100", "HF_HUB_OFFLINE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    started = []

    def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
        with (folder / "said").open("a") as said:
            command = [sys.executable, "-c", "from ftl.cli import main; main()", *arguments]
            process = subprocess.Popen(
                command, env=environment, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said, text=True
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def write_cloud(folder: Path, **keys: object) -> None:
    cloud = {
        "provider": "skypilot",
        "infra": "slurm/lab",
        "python": str(LAB / "env/bin/python"),
        "env": {"OMP_NUM_THREADS": "1"},
        **keys,
    }
    (folder / "cloud.yml").write_text(json.dumps(cloud))  # JSON is YAML


def slurm_jobs() -> list[str]:
    """The ids of the cluster's jobs that have not ended."""
    listed = subprocess.run(["squeue", "-h", "-o", "%i %T"], capture_output=True, text=True, check=True).stdout
    return [line.split()[0] for line in listed.splitlines() if not line.endswith("COMPLETING")]


def run_of(state: Path, project: str) -> Path:
    """The run of a project; its name ends the run's id."""
    (run,) = (path for path in (state / "runs").glob(f"*-{project}") if path.is_dir())
    return run


def events(run: Path, name: str) -> list[dict[str, Any]]:  # Any: JSON
    """Data of the events of that name which this machine has: its own run's, or those that SkyPilot's log told."""
    files = [run / "events.jsonl", *sorted((run / "skypilot").glob("*.events"))]
    lines = [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines()]
    return [line["data"] for line in lines if line["event"] == name]


def losses(run: Path) -> dict[int, float]:
    return {data["step"]: data["loss"] for data in events(run, "step")}


def wait_for(condition: Callable[[], object], what: str, process: "subprocess.Popen[str] | None" = None) -> None:
    give_up = time.monotonic() + _WAIT_S
    while not condition():
        assert time.monotonic() < give_up, f"waited {_WAIT_S} s for {what}"
        assert process is None or process.poll() is None, f"ftl ended before {what}"
        time.sleep(0.5)


def test_two_machines_train_as_one_over_gloo(ftl: Ftl, shared: Path, own_state: Path, tmp_path: Path) -> None:
    """Bit for bit what two processes of one machine train."""
    for name in ("here", "there"):
        make_project(tmp_path / name, num_rows=48, num_epochs=1, save_steps=3)
    (tmp_path / "here/cloud.yml").write_text("provider: local\nprocesses: 2\n")
    here = ftl(tmp_path / "here", "train", "cfg.yml", "--cloud", "cloud.yml")
    write_cloud(tmp_path / "there", nodes=2, shared=str(shared), secrets=["CANARY"])
    there = ftl(tmp_path / "there", "train", "cfg.yml", "--cloud", "cloud.yml")
    for name, process in (("here", here), ("there", there)):
        assert process.wait(_WAIT_S) == 0, (tmp_path / name / "said").read_text()
    expected = losses(run_of(own_state, "here"))
    assert len(expected) > 2
    assert losses(run_of(own_state, "there")) == expected
    assert (tmp_path / "there/out/model.safetensors").exists()
    (on_nodes,) = (shared / "runs").iterdir()
    assert {json.loads((on_nodes / f"exit{node}.json").read_text())["exit_code"] for node in ("", "-1")} == {0}
    wait_for(lambda: not slurm_jobs(), "the cluster to be let go")


def test_secret_is_on_no_disk_of_the_server(server: SkyServer) -> None:
    """Of the first test of this file, which gives it to its job."""
    assert leaks(below(server.home), list(forms(CANARY))) == []
