"""Docker: one container an attempt, on this machine's engine.

The run directory is bind-mounted, so events, logs and results are read as files; the container itself carries nothing
that must be kept. Labels are the only registry: any shell finds an attempt again by them.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from ftl.backends import HERE
from ftl.backends.docker_container import (
    ended_state,
    find_container,
    inspect_container,
    last_line_of,
    launch_container,
    read_verdict,
    remove_container,
    signal_container,
)
from ftl.backends.docker_engine import engine, engine_problems
from ftl.backends.docker_images import image_problems, local_image, pull
from ftl.backends.docker_request import container_name, job_inside, request, write_job
from ftl.backends.local import copy, read_file
from ftl.backends.secret_files import delete_secrets, memory_folder
from ftl.cloud import CloudSection
from ftl.contract import Bundle, Gpu, JobHandle, JobSpec, JobState, Resources
from ftl.errors import BackendError, FtlError, Problem
from ftl.image import resolve


def _gpu(value: Any) -> Any:
    """YAML's ways to name GPUs. Other values pass, for pydantic to refuse."""
    if value is None or value == "none":
        return 0
    if isinstance(value, bool) or (isinstance(value, int) and value < 0):
        raise ValueError("must be `all`, a number, a list of GPU ids, or none")
    if isinstance(value, list | tuple):
        return tuple(str(one) for one in value)
    return value


class DockerCloud(CloudSection):
    provider: Literal["docker"] = "docker"
    image: str | None = None
    """A name of images.lock.toml, or repository:tag@sha256:digest. `cuda` when GPUs are asked for, else `cpu`."""
    allow_unpinned: bool = False
    """Take a tag without a digest, which may be another image tomorrow."""
    gpu: Annotated[Gpu, BeforeValidator(_gpu)] = 0
    """`all`, how many, or a list of ids; none when absent."""
    processes: Annotated[int, Field(ge=1)] = 1
    """How many processes train together where there is no GPU; they share its cores. With GPUs there is one a GPU."""
    gpu_kind: str | None = None
    """What they are, such as RTX4090 or A100-80GB: the config is then checked against it."""
    cpus: Annotated[float, Field(gt=0)] | None = None
    """CPU cores at most."""
    memory: Annotated[float, Field(ge=0.01)] | None = None
    """Main memory at most, in GiB; beyond it the job is killed. No swap is given."""
    shm: Annotated[float, Field(gt=0)] = 8.0
    """Size of /dev/shm in GiB, for data loader workers and NCCL; not reserved."""


class DockerBackend:
    """Backend for the Docker engine of this machine."""

    Cloud: ClassVar[type[CloudSection]] = DockerCloud
    recovers: ClassVar[bool] = False
    place: ClassVar[str] = HERE
    poll_s: ClassVar[float] = 0.3

    def __init__(self, cloud: DockerCloud) -> None:
        self.cloud = cloud

    def spec_fields(self) -> dict[str, Any]:  # Any: values of JobSpec fields
        cloud = self.cloud
        return {
            "image": cloud.image or ("cuda" if cloud.gpu else "cpu"),
            "resources": Resources(
                gpus=cloud.gpu,
                processes=cloud.processes,
                gpu_kind=cloud.gpu_kind,
                cpus=cloud.cpus,
                memory_gib=cloud.memory,
                shm_gib=cloud.shm,
            ),
        }

    def preflight(self, spec: JobSpec) -> list[Problem]:
        problems = [
            Problem(f"secret {name}", "not set in this shell", None, f"`export {name}=...`")
            for name in spec.secrets
            if name not in os.environ
        ]
        if spec.secrets and memory_folder() is None:
            problems.append(Problem("secrets", "this machine has neither /dev/shm nor XDG_RUNTIME_DIR to keep them in"))
        problems += [
            Problem(f"mount {mount.name}", mount.source, "is not there")
            for mount in spec.mounts
            if not Path(mount.source).exists()
        ]
        if find_spec("docker") is None:
            return [*problems, _NO_SDK]
        try:
            resolved = resolve(spec.image or "", allow_unpinned=self.cloud.allow_unpinned)
            with engine() as client:
                return problems + engine_problems(client, spec) + image_problems(client, spec, resolved)
        except FtlError as error:
            return problems + [p if isinstance(p, Problem) else Problem(p) for p in error.problems]

    def describe(self, spec: JobSpec, bundle: Bundle, run_dir: Path) -> dict[str, Any]:  # Any: the engine's own JSON
        return {
            "name": container_name(spec),
            "job": job_inside(spec).model_dump(),
            "container": request(spec, bundle, run_dir, image=self._image_shown(spec)),
        }

    def _image_shown(self, spec: JobSpec) -> str:
        """The id of the image that would run; what was asked for while no engine can tell."""
        try:
            resolved = resolve(spec.image or "", allow_unpinned=self.cloud.allow_unpinned)
            with engine() as client:
                return local_image(client, resolved) or resolved.reference or resolved.given
        except FtlError:
            return spec.image or ""

    def submit(self, spec: JobSpec, bundle: Bundle, run_dir: Path) -> JobHandle:
        if find_spec("docker") is None:
            raise BackendError(_NO_SDK)
        resolved = resolve(spec.image or "", allow_unpinned=self.cloud.allow_unpinned)
        with engine() as client:
            found = find_container(client, spec)
            if found is None:
                image = local_image(client, resolved) or pull(client, resolved)
                write_job(spec, run_dir)
                container = launch_container(client, spec, request(spec, bundle, run_dir, image=image))
            elif found["State"]["Status"] == "created":  # whoever created it was killed before starting it
                body = request(spec, bundle, run_dir, image=found["Image"])
                container = launch_container(client, spec, body, created=found["Id"])
            else:
                container = found["Id"]
        ref: dict[str, str | int] = {"container": container, "run_dir": str(run_dir)}
        return JobHandle(provider="docker", run_id=spec.run_id, attempt=spec.attempt, ref=ref)

    def status(self, handle: JobHandle) -> JobState:
        with engine() as client:
            container = inspect_container(client, str(handle.ref["container"]))
            state = container["State"] if container else {"Status": "gone"}
            if state["Status"] == "created":
                return JobState(phase="queued")
            if state["Status"] in ("running", "paused", "restarting"):
                return JobState(phase="running")
            delete_secrets(handle.run_id, handle.attempt)
            verdict = read_verdict(handle)
            last_line = last_line_of(client, container["Id"]) if container and verdict is None else ""
        return ended_state(state, verdict, last_line)

    def read(self, handle: JobHandle, name: str, offset: int) -> bytes:
        return read_file(Path(str(handle.ref["run_dir"])) / name, offset)

    def cancel(self, handle: JobHandle, *, now: bool = False) -> None:
        with engine() as client:
            signal_container(client, str(handle.ref["container"]), "SIGKILL" if now else "SIGTERM")
        if now:
            delete_secrets(handle.run_id, handle.attempt)

    def fetch(self, handle: JobHandle, name: str, dest: Path) -> None:
        copy(Path(str(handle.ref["run_dir"])) / name, dest)

    def remove(self, handle: JobHandle) -> None:
        with engine() as client:
            remove_container(client, str(handle.ref["container"]))
        delete_secrets(handle.run_id, handle.attempt)

    def erase(self, handle: JobHandle) -> None:
        """The run directory is the launcher's own."""

    def records(self) -> list[dict[str, Any]]:  # Any: JSON
        return []

    def collect(self) -> list[str]:
        return []


_NO_SDK = Problem("provider 'docker' needs the 'docker' package", "pip install 'ftl-launcher[docker]'")

BACKEND = DockerBackend
