"""The life of an attempt's container: found, made, signalled, removed, and how it ended."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ftl.backends.docker_request import ATTEMPT_LABEL, RUN_LABEL, container_name
from ftl.backends.secret_files import delete_secrets, write_secrets
from ftl.contract import EXIT_FILE, Cause, ExitRecord, JobHandle, JobSpec, JobState
from ftl.errors import ExitCode

if TYPE_CHECKING:
    from docker import DockerClient

_LOG = logging.getLogger("ftl.docker")


def find_container(client: "DockerClient", spec: JobSpec) -> dict[str, Any] | None:  # Any: the engine's JSON
    """This attempt's container in any state, told by its labels."""
    labels = [f"{RUN_LABEL}={spec.run_id}", f"{ATTEMPT_LABEL}={spec.attempt}"]
    for one in client.api.containers(all=True, filters={"label": labels}):
        container = inspect_container(client, one["Id"])
        if container is not None:
            return container
    return None


def inspect_container(client: "DockerClient", container: str) -> dict[str, Any] | None:  # Any: the engine's JSON
    from docker.errors import NotFound

    try:
        found: dict[str, Any] = client.api.inspect_container(container)
    except NotFound:
        return None
    return found


def launch_container(client: "DockerClient", spec: JobSpec, body: dict[str, Any], created: str | None = None) -> str:
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
            remove_container(client, container)
            host = {key: value for key, value in body["HostConfig"].items() if key != "Ulimits"}
            container = _create(client, spec, {**body, "HostConfig": host})
            client.api.start(container)
    except BaseException:
        delete_secrets(spec.run_id, spec.attempt)
        if container is not None:
            remove_container(client, container)
        raise
    return container


def _create(client: "DockerClient", spec: JobSpec, body: dict[str, Any]) -> str:
    """The id of the created container; of this attempt's own when another process has just created it."""
    from docker.errors import APIError

    api: Any = client.api  # Any: the stubs leave this call untyped
    try:
        return str(api.create_container_from_config(body, container_name(spec))["Id"])
    except APIError as error:
        found = find_container(client, spec) if "already in use" in str(error.explanation) else None
        if found is None:
            raise
        return str(found["Id"])


def signal_container(client: "DockerClient", container: str, signal: str) -> None:
    """Send a signal; silent when the container has ended or is gone."""
    from docker.errors import APIError, NotFound

    try:
        client.api.kill(container, signal)
    except NotFound:
        return
    except APIError as error:
        if "is not running" not in str(error.explanation):
            raise


def remove_container(client: "DockerClient", container: str) -> None:
    """Kill and remove; silent when it is gone, or another process is removing it."""
    from docker.errors import APIError, NotFound

    try:
        client.api.remove_container(container, force=True)
    except NotFound:
        return
    except APIError as error:
        if "already in progress" not in str(error.explanation):
            raise


def read_verdict(handle: JobHandle) -> ExitRecord | None:
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


def last_line_of(client: "DockerClient", container: str) -> str:
    """The last thing the container said: why python did not even start, for example."""
    said = client.api.logs(container, tail=5, stdout=True, stderr=True).decode(errors="replace").strip()
    return said.splitlines()[-1].strip() if said else ""


def ended_state(
    state: dict[str, Any],  # Any: the engine's JSON
    verdict: ExitRecord | None,
    last_line: str = "",
) -> JobState:
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
