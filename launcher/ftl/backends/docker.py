"""Docker: one container an attempt, on this machine's engine.

The run directory is bind-mounted, so events, logs and results are read as files; the container itself carries nothing
that must be kept. Labels are the only registry: any shell finds an attempt again by them.
"""

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal
from urllib.parse import urlparse

from pydantic import BeforeValidator, Field, ValidationError

from ftl.backends import HERE
from ftl.backends.docker_faults import explain
from ftl.backends.docker_request import ATTEMPT_LABEL, GIB, RUN_LABEL, container_name, job_inside, request, write_job
from ftl.backends.local import copy, read_file
from ftl.backends.secret_files import delete_secrets, memory_folder, write_secrets
from ftl.cloud import CloudSection
from ftl.contract import (
    EXIT_FILE,
    Bundle,
    Cause,
    ExitRecord,
    Gpu,
    JobHandle,
    JobSpec,
    JobState,
    Resources,
)
from ftl.errors import BackendError, ExitCode, FtlError, Problem, StorageError
from ftl.image import RECIPE_LABEL, Resolved, resolve

if TYPE_CHECKING:
    from docker import DockerClient

_LOG = logging.getLogger("ftl.docker")
_MIN_FREE_BYTES = 64 * 2**20
"""Below this the engine's disk counts as full: its own message about that is misleading."""


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
            with _engine() as client:
                return problems + _engine_problems(client, spec) + _image_problems(client, spec, resolved)
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
            with _engine() as client:
                return _local_image(client, resolved) or resolved.reference or resolved.given
        except FtlError:
            return spec.image or ""

    def submit(self, spec: JobSpec, bundle: Bundle, run_dir: Path) -> JobHandle:
        if find_spec("docker") is None:
            raise BackendError(_NO_SDK)
        resolved = resolve(spec.image or "", allow_unpinned=self.cloud.allow_unpinned)
        with _engine() as client:
            found = _find(client, spec)
            if found is None:
                image = _local_image(client, resolved) or _pull(client, resolved)
                write_job(spec, run_dir)
                container = _launch(client, spec, request(spec, bundle, run_dir, image=image))
            elif found["State"]["Status"] == "created":  # whoever created it was killed before starting it
                body = request(spec, bundle, run_dir, image=found["Image"])
                container = _launch(client, spec, body, created=found["Id"])
            else:
                container = found["Id"]
        ref: dict[str, str | int] = {"container": container, "run_dir": str(run_dir)}
        return JobHandle(provider="docker", run_id=spec.run_id, attempt=spec.attempt, ref=ref)

    def status(self, handle: JobHandle) -> JobState:
        with _engine() as client:
            container = _inspect(client, str(handle.ref["container"]))
            state = container["State"] if container else {"Status": "gone"}
            if state["Status"] == "created":
                return JobState(phase="queued")
            if state["Status"] in ("running", "paused", "restarting"):
                return JobState(phase="running")
            delete_secrets(handle.run_id, handle.attempt)
            verdict = _verdict(handle)
            last_line = _last_line(client, container["Id"]) if container and verdict is None else ""
        return _ended(state, verdict, last_line)

    def read(self, handle: JobHandle, name: str, offset: int) -> bytes:
        return read_file(Path(str(handle.ref["run_dir"])) / name, offset)

    def cancel(self, handle: JobHandle, *, now: bool = False) -> None:
        with _engine() as client:
            _signal(client, str(handle.ref["container"]), "SIGKILL" if now else "SIGTERM")
        if now:
            delete_secrets(handle.run_id, handle.attempt)

    def fetch(self, handle: JobHandle, name: str, dest: Path) -> None:
        copy(Path(str(handle.ref["run_dir"])) / name, dest)

    def remove(self, handle: JobHandle) -> None:
        with _engine() as client:
            _remove(client, str(handle.ref["container"]))
        delete_secrets(handle.run_id, handle.attempt)

    def erase(self, handle: JobHandle) -> None:
        """The run directory is the launcher's own."""

    def records(self) -> list[dict[str, Any]]:  # Any: JSON
        return []

    def collect(self) -> list[str]:
        return []


_NO_SDK = Problem("provider 'docker' needs the 'docker' package", "pip install 'ftl-launcher[docker]'")


# --- the engine ---------------------------------------------------------------------------------------------------


@contextmanager
def _engine() -> Iterator["DockerClient"]:
    """A connection to the engine; whatever it or the connection raises leaves as an FtlError with one sentence."""
    _refuse_remote(os.environ.get("DOCKER_HOST", ""))
    import docker
    from docker.errors import APIError, DockerException
    from requests.exceptions import RequestException

    client = None
    try:
        client = docker.from_env(timeout=60, version="auto")
        yield client
    except APIError as error:
        text = str(error.explanation or error)
        raise _disk_full(client, error.status_code) or explain(error.status_code, text) from error
    except (DockerException, RequestException) as error:
        raise explain(None, str(error)) from error
    finally:
        if client is not None:
            client.close()


def _refuse_remote(host: str) -> None:
    """Raises BackendError for an engine on another machine: the run directory and the bundle are on this one."""
    url = urlparse(host)
    if url.scheme in ("", "unix", "npipe", "fd"):
        return
    name = url.hostname or ""
    if url.scheme != "ssh" and (name in ("localhost", "::1") or name.startswith("127.")):
        return
    raise BackendError(
        Problem("DOCKER_HOST", host, "is an engine on another machine, which cannot mount this machine's run directory")
    )


def _disk_full(client: "DockerClient | None", status: int | None) -> StorageError | None:
    """On a full disk the engine's own text often speaks of a missing file, so the disk itself is asked."""
    if client is None or status != 500:
        return None
    from docker.errors import DockerException
    from requests.exceptions import RequestException

    try:
        root = client.info()["DockerRootDir"]
        free = shutil.disk_usage(root).free
    except (DockerException, RequestException, OSError, KeyError):
        return None
    if free >= _MIN_FREE_BYTES:
        return None
    return StorageError(
        Problem(root, f"{free // 2**20} MiB free", "the engine's disk is full", "free some with: docker system prune")
    )


def _engine_problems(client: "DockerClient", spec: JobSpec) -> list[Problem]:
    problems = []
    info = client.info()
    cpus, memory_gib = spec.resources.cpus, spec.resources.memory_gib
    if cpus is not None and cpus > info["NCPU"]:
        problems.append(Problem("cpus", f"{cpus:g}", f"this engine has {info['NCPU']}"))
    if memory_gib is not None and memory_gib * GIB > info["MemTotal"]:
        problems.append(Problem("memory", f"{memory_gib:g}", f"this engine has {info['MemTotal'] / GIB:.1f} GiB"))
    return problems


def _image_problems(client: "DockerClient", spec: JobSpec, resolved: Resolved) -> list[Problem]:
    image_id = _local_image(client, resolved)
    if image_id is None:
        is_pulled = resolved.reference is not None and not resolved.reference.startswith("sha256:")
        return [] if is_pulled else [Problem(resolved.missing)]
    labels = client.images.get(image_id).labels
    if not spec.resources.gpus:
        return []
    if labels.get("ftl.cuda") == "cpu":
        return [Problem("image", resolved.given, "has no CUDA", "use `image: cuda`, or leave out `gpu`")]
    driver, needed = _driver(), labels.get("ftl.min_driver", "")
    if driver is not None and needed.isdigit() and driver < int(needed):
        return [
            Problem(
                "NVIDIA driver", str(driver), f"the image needs {needed} or newer", "update the driver of this machine"
            )
        ]
    return []


def _driver() -> int | None:
    """Major version of this machine's NVIDIA driver; None where there is none to ask."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return None
    command = [smi, "--query-gpu=driver_version", "--format=csv,noheader"]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout
    major = told.strip().split(".")[0]
    return int(major) if major.isdigit() else None


# --- images -------------------------------------------------------------------------------------------------------


def _local_image(client: "DockerClient", resolved: Resolved) -> str | None:
    """The id of what the engine already has: the newest build of the recipe as it stands now, or the reference."""
    from docker.errors import ImageNotFound

    if resolved.recipe is not None:
        labels = {"label": f"{RECIPE_LABEL}={resolved.recipe.sha256}"}
        builds = client.api.images(filters=labels)
        if builds:
            return str(max(builds, key=lambda build: int(build["Created"]))["Id"])
    if resolved.reference is None:
        return None
    try:
        return str(client.images.get(_without_tag(resolved.reference)).id)
    except ImageNotFound:
        return None


def _pull(client: "DockerClient", resolved: Resolved) -> str:
    """Fetch the image from its registry; its id. Raises BackendError for an image that nobody has published."""
    from docker.errors import APIError

    if resolved.reference is None or resolved.reference.startswith("sha256:"):
        raise BackendError(resolved.missing)
    reference = _without_tag(resolved.reference)
    _LOG.info("pulling %s", reference)
    for progress in client.api.pull(reference, stream=True, decode=True):
        if "error" in progress:
            raise APIError(str(progress["error"]), explanation=str(progress["error"]))
    return str(client.images.get(reference).id)


def _without_tag(reference: str) -> str:
    """repository:tag@sha256:... -> repository@sha256:...; the tag is for readers, engines file it under the digest."""
    repository, at, digest = reference.partition("@")
    if not at:
        return reference
    folder, slash, last = repository.rpartition("/")
    return f"{folder}{slash}{last.split(':')[0]}@{digest}"


# --- the container ------------------------------------------------------------------------------------------------


def _find(client: "DockerClient", spec: JobSpec) -> dict[str, Any] | None:  # Any: the engine's JSON
    """This attempt's container in any state, told by its labels."""
    labels = [f"{RUN_LABEL}={spec.run_id}", f"{ATTEMPT_LABEL}={spec.attempt}"]
    for one in client.api.containers(all=True, filters={"label": labels}):
        container = _inspect(client, one["Id"])
        if container is not None:
            return container
    return None


def _inspect(client: "DockerClient", container: str) -> dict[str, Any] | None:  # Any: the engine's JSON
    from docker.errors import NotFound

    try:
        found: dict[str, Any] = client.api.inspect_container(container)
    except NotFound:
        return None
    return found


def _launch(client: "DockerClient", spec: JobSpec, body: dict[str, Any], created: str | None = None) -> str:
    """Create the container unless `created` is it, and start it; its id.

    When that fails nothing is left: no container, no secrets.
    """
    from docker.errors import APIError

    container = created
    try:
        write_secrets(spec)  # before the create call, which wants every mount's source to be there
        container = container or _create(client, spec, body)
        try:
            client.api.start(container)
        except APIError as error:
            if "error setting rlimit" not in str(error.explanation):
                raise
            _LOG.warning(
                "docker: the engine may not raise the memlock and stack limits, so the job has the engine's own; "
                "if NCCL fails to allocate, start the engine with CAP_SYS_RESOURCE"
            )
            _remove(client, container)
            host = {key: value for key, value in body["HostConfig"].items() if key != "Ulimits"}
            container = _create(client, spec, {**body, "HostConfig": host})
            client.api.start(container)
    except BaseException:
        delete_secrets(spec.run_id, spec.attempt)
        if container is not None:
            _remove(client, container)
        raise
    return container


def _create(client: "DockerClient", spec: JobSpec, body: dict[str, Any]) -> str:
    """The id of the created container; of this attempt's own when another process has just created it."""
    from docker.errors import APIError

    api: Any = client.api  # Any: the stubs leave this call untyped
    try:
        return str(api.create_container_from_config(body, container_name(spec))["Id"])
    except APIError as error:
        found = _find(client, spec) if "already in use" in str(error.explanation) else None
        if found is None:
            raise
        return str(found["Id"])


def _signal(client: "DockerClient", container: str, signal: str) -> None:
    """Send a signal; silent when the container has ended or is gone."""
    from docker.errors import APIError, NotFound

    try:
        client.api.kill(container, signal)
    except NotFound:
        return
    except APIError as error:
        if "is not running" not in str(error.explanation):
            raise


def _remove(client: "DockerClient", container: str) -> None:
    """Kill and remove; silent when it is gone, or another process is removing it."""
    from docker.errors import APIError, NotFound

    try:
        client.api.remove_container(container, force=True)
    except NotFound:
        return
    except APIError as error:
        if "already in progress" not in str(error.explanation):
            raise


# --- how it ended -------------------------------------------------------------------------------------------------


def _verdict(handle: JobHandle) -> ExitRecord | None:
    """What the runtime's supervisor wrote as its last act, if it came to that in this attempt."""
    try:
        verdict = ExitRecord.read_json((Path(str(handle.ref["run_dir"])) / EXIT_FILE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return None
    return verdict if verdict.is_of(handle.attempt) else None


_WITHOUT_VERDICT: dict[int, tuple[Cause, int, str]] = {
    ExitCode.DONE: ("lost", ExitCode.PREEMPTED, "the container ended without a verdict"),
    137: ("killed", ExitCode.PREEMPTED, "the container was killed from outside"),
    143: ("signal", ExitCode.PREEMPTED, "the container was stopped before the runtime could save anything"),
    126: ("environment", ExitCode.ENVIRONMENT, "the image's python cannot be run"),
    127: ("environment", ExitCode.ENVIRONMENT, "the image has no `python`"),
}


def _last_line(client: "DockerClient", container: str) -> str:
    """The last thing the container said: why python did not even start, for example."""
    said = client.api.logs(container, tail=5, stdout=True, stderr=True).decode(errors="replace").strip()
    return said.splitlines()[-1].strip() if said else ""


def _ended(state: dict[str, Any], verdict: ExitRecord | None, last_line: str = "") -> JobState:  # Any: engine's JSON
    """The verdict where there is one, else what the exit code tells; a kill for memory overrides a mere crash."""
    is_oom = bool(state.get("OOMKilled"))
    if verdict is not None and not (is_oom and verdict.cause in ("crash", "killed", "lost")):
        return JobState(phase="ended", exit_code=verdict.exit_code, cause=verdict.cause, message=verdict.message)
    if is_oom:
        message = "the job used more main memory than it was given; raise `memory`"
        if verdict is not None and verdict.message:
            message = f"{message} (the runtime saw: {verdict.message})"
        return JobState(phase="ended", exit_code=ExitCode.TRAINING, cause="out-of-memory", message=message)
    if state["Status"] == "gone":
        return JobState(
            phase="ended",
            exit_code=ExitCode.PREEMPTED,
            cause="lost",
            message="the container is gone and left no verdict",
        )
    code = int(state.get("ExitCode") or 0)
    crash: tuple[Cause, int, str] = (
        "crash",
        code,
        f"the container ended with {code}: {last_line or 'it said nothing'}",
    )
    cause, exit_code, message = _WITHOUT_VERDICT.get(code, crash)
    return JobState(phase="ended", exit_code=exit_code, cause=cause, message=message)


BACKEND = DockerBackend
