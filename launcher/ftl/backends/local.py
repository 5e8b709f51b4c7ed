"""This machine: the runtime as a supervised process group of its own. It outlives the launcher and the terminal."""

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError

from ftl.backends import HERE
from ftl.cloud import CloudSection
from ftl.contract import (
    BUNDLE_CODE,
    EXIT_FILE,
    JOB_FILE,
    Bundle,
    ExitRecord,
    JobHandle,
    JobSpec,
    JobState,
    Paths,
    Resources,
)
from ftl.errors import BackendError, ExitCode, Problem
from ftl.state import cache_dir, make_private

_STACK = ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "jinja2", "numpy")
# The shell notes its own process id, then becomes the supervisor: an attempt that runs can always be found.
_START = 'echo $$ > "$1.new" && mv "$1.new" "$1" && shift && exec "$@"'


class LocalCloud(CloudSection):
    provider: Literal["local"] = "local"
    gpu: Literal["all", "none"] | int | None = None
    """How many GPUs to use, `all` or `none`; all that CUDA_VISIBLE_DEVICES leaves when absent."""
    processes: Annotated[int, Field(ge=1)] = 1
    """How many processes train together where there is no GPU; they share its cores. With GPUs there is one a GPU."""
    gpu_kind: str | None = None
    """What they are, such as RTX4090 or A100-80GB: the config is then checked against it."""


class LocalBackend:
    """Backend for this machine."""

    Cloud: ClassVar[type[CloudSection]] = LocalCloud
    recovers: ClassVar[bool] = False
    place: ClassVar[str] = HERE
    poll_s: ClassVar[float] = 0.3

    def __init__(self, cloud: LocalCloud) -> None:
        self.cloud = cloud

    def spec_fields(self) -> dict[str, Any]:
        gpus = _visible_gpus() if self.cloud.gpu in (None, "all") else self.cloud.gpu
        cloud = self.cloud
        gpus = 0 if gpus == "none" else gpus
        return {"resources": Resources(gpus=gpus, processes=cloud.processes, gpu_kind=cloud.gpu_kind)}

    def preflight(self, spec: JobSpec) -> list[Problem]:
        problems = []
        missing = [name for name in _STACK if find_spec(name) is None]
        if missing:
            problems.append(
                Problem(
                    "this machine",
                    f"{', '.join(missing)} not installed",
                    "training here needs the runtime packages",
                    "`pip install 'ftl-launcher[runtime]'`, or train in a container with --cloud docker.yml",
                )
            )
        visible = _visible_gpus()
        if isinstance(spec.resources.gpus, int) and spec.resources.gpus > visible:
            problems.append(Problem("gpu", str(spec.resources.gpus), f"this machine has {visible}"))
        absent = [name for name in spec.secrets if name not in os.environ]
        problems += [
            Problem(f"secret {name}", "not set in this shell", None, f"`export {name}=...`") for name in absent
        ]
        return problems

    def describe(self, spec: JobSpec, bundle: Bundle, run_dir: Path) -> dict[str, Any]:
        return {"command": _command(run_dir), "cwd": str(run_dir), "job": _job(spec, bundle, run_dir).model_dump()}

    def submit(self, spec: JobSpec, bundle: Bundle, run_dir: Path) -> JobHandle:
        pid_file = run_dir / f"attempt-{spec.attempt}.pid"
        handle = JobHandle(
            provider="local",
            run_id=spec.run_id,
            attempt=spec.attempt,
            ref={"run_dir": str(run_dir), "pid_file": pid_file.name},
        )
        if pid_file.exists():
            return handle
        job = _job(spec, bundle, run_dir)
        make_private(cache_dir())
        temporary = run_dir / f".{JOB_FILE}.new"
        temporary.write_text(job.model_dump_json(indent=1))
        temporary.replace(run_dir / JOB_FILE)
        environment = {**os.environ, "PYTHONPATH": str(Path(bundle.path) / BUNDLE_CODE), "PYTHONDONTWRITEBYTECODE": "1"}
        with (run_dir / "supervisor.err").open("ab") as errors:
            process = subprocess.Popen(
                ["/bin/sh", "-c", _START, "sh", str(pid_file), *_command(run_dir)],
                cwd=run_dir,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        while not pid_file.exists() and process.poll() is None:
            time.sleep(0.005)
        return handle

    def status(self, handle: JobHandle) -> JobState:
        run_dir = Path(str(handle.ref["run_dir"]))
        pid = _pid(handle)
        if pid is not None and _is_supervisor(pid, run_dir):
            return JobState(phase="running")
        try:
            verdict = ExitRecord.read_json((run_dir / EXIT_FILE).read_bytes())
        except (FileNotFoundError, ValidationError):
            verdict = None
        if verdict is not None and verdict.is_of(handle.attempt):
            return JobState(phase="ended", exit_code=verdict.exit_code, cause=verdict.cause, message=verdict.message)
        return JobState(
            phase="ended",
            exit_code=ExitCode.PREEMPTED,
            cause="lost",
            message=_last_line(run_dir / "supervisor.err") or "the supervisor is gone and left no verdict",
        )

    def read(self, handle: JobHandle, name: str, offset: int) -> bytes:
        return read_file(Path(str(handle.ref["run_dir"])) / name, offset)

    def cancel(self, handle: JobHandle, *, now: bool = False) -> None:
        pid = _pid(handle)
        if pid is None or not _is_supervisor(pid, Path(str(handle.ref["run_dir"]))):
            return
        try:
            if now:
                os.killpg(pid, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise BackendError(Problem(f"process {pid}", str(error), "it belongs to another user")) from error

    def fetch(self, handle: JobHandle, name: str, dest: Path) -> None:
        copy(Path(str(handle.ref["run_dir"])) / name, dest)

    def remove(self, handle: JobHandle) -> None:
        self.cancel(handle, now=True)

    def erase(self, handle: JobHandle) -> None:
        """The run directory is the launcher's own."""

    def records(self) -> list[dict[str, Any]]:  # Any: JSON
        return []

    def collect(self) -> list[str]:
        return []


def read_file(path: Path, offset: int) -> bytes:
    """The bytes of a file from `offset`; empty when it does not exist."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            return file.read()
    except FileNotFoundError:
        return b""


def copy(source: Path, dest: Path) -> None:
    """Copy a file or a directory to `dest`, which does not exist yet."""
    if source.is_dir():
        shutil.copytree(source, dest)
    else:
        shutil.copy2(source, dest)


def _command(run_dir: Path) -> list[str]:
    return [sys.executable, "-m", "ftl_runtime", str(run_dir / JOB_FILE)]


def _job(spec: JobSpec, bundle: Bundle, run_dir: Path) -> JobSpec:
    paths = Paths(
        bundle=bundle.path,
        run=str(run_dir),
        cache=str(cache_dir()),
        mounts={mount.name: mount.source for mount in spec.mounts},
    )
    return spec.model_copy(update={"paths": paths})


def _visible_gpus() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = len([p for p in Path("/dev").glob("nvidia[0-9]*") if p.name.removeprefix("nvidia").isdigit()])
    return (
        present
        if visible is None
        else min(present, len([v for v in visible.split(",") if v.strip() not in ("", "-1")]))
    )


def _pid(handle: JobHandle) -> int | None:
    try:
        return int((Path(str(handle.ref["run_dir"])) / str(handle.ref["pid_file"])).read_text())
    except (FileNotFoundError, ValueError):
        return None


def _is_supervisor(pid: int, run_dir: Path) -> bool:
    """Whether that process is this run's supervisor, not a zombie of it and not a stranger with a reused id."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return False
        listing = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, check=False)
        command = listing.stdout
    except ProcessLookupError:
        return False
    return os.fsencode(run_dir / JOB_FILE) in command


def _last_line(path: Path) -> str | None:
    lines = read_file(path, 0).decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else None


BACKEND = LocalBackend
