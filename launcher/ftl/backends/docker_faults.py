"""The error catalogue of the Docker backend: what an engine or a registry says, and the one sentence the user reads.

Matched on the text as well as the status, because engines use the same status for many things. Texts were recorded from
Docker 20.10 through SDK 7.2; rows that name CDI are from newer engines.
"""

from dataclasses import dataclass

from ftl.errors import BackendError, ConfigError, FtlError, Problem, StorageError


@dataclass(frozen=True)
class Fault:
    """One way an engine refuses, and what the user reads instead."""

    status: int | None
    """HTTP status it comes with; None when it has none or several."""
    fragment: str
    """Part of the engine's text, lower case. The status alone says nothing: no credentials come as 500."""
    sentence: str
    remedy: str
    error: type[FtlError] = BackendError


FAULTS: tuple[Fault, ...] = (
    Fault(
        None,
        "dial tcp",
        "the registry cannot be reached",
        "check its name and the engine's network, or build the image here with: ftl images build NAME",
    ),
    Fault(
        None,
        "permission denied while trying to connect",
        "this user may not talk to the Docker engine",
        "add the user to the group `docker`, or use a rootless engine",
    ),
    Fault(
        None,
        "permissionerror(13",
        "this user may not talk to the Docker engine",
        "add the user to the group `docker`, or use a rootless engine",
    ),
    Fault(
        None,
        "read timed out",
        "the Docker engine does not answer in time",
        "see whether the machine is overloaded, or restart the engine",
    ),
    Fault(None, "filenotfounderror(2", "no Docker engine is running", "start it, or set DOCKER_HOST"),
    Fault(None, "connection refused", "no Docker engine is running", "start it, or set DOCKER_HOST"),
    Fault(None, "connectionrefusederror", "no Docker engine is running", "start it, or set DOCKER_HOST"),
    Fault(
        None,
        "connection aborted",
        "the Docker engine went away",
        "start it again; the run directory holds what was saved",
    ),
    Fault(None, "client version", "the Docker engine is too old for this SDK", "use Docker 20.10 or newer"),
    Fault(
        None,
        "no space left on device",
        "the engine's disk is full",
        "free some, for example with: docker system prune",
        StorageError,
    ),
    Fault(404, "no such image", "the image is not on this engine", "build it with: ftl images build NAME"),
    Fault(404, "manifest unknown", "the registry has no such tag or digest", "check the reference", ConfigError),
    Fault(404, "not found: manifest", "the registry has no such tag or digest", "check the reference", ConfigError),
    Fault(None, "no basic auth credentials", "the registry wants you to log in", "run: docker login REGISTRY"),
    Fault(None, "unauthorized", "the registry does not accept the login", "run: docker login REGISTRY"),
    Fault(
        None,
        "toomanyrequests",
        "the registry's pull limit is reached",
        "wait, or log in for a higher one: docker login REGISTRY",
    ),
    Fault(
        None,
        "pull access denied",
        "the registry has no such image, or it wants you to log in",
        "check the reference, or run: docker login REGISTRY",
    ),
    Fault(
        None,
        "with capabilities: [[gpu]]",
        "the engine has no NVIDIA support",
        "install nvidia-container-toolkit and restart the engine, or leave out `gpu`",
    ),
    Fault(
        None,
        "failed to discover gpu vendor from cdi",
        "the engine has no NVIDIA support",
        "install nvidia-container-toolkit, generate its CDI file and restart the engine, or leave out `gpu`",
    ),
    Fault(
        None,
        "unresolvable cdi devices",
        "the engine does not know such a GPU",
        "check `gpu` against nvidia-smi, and generate the CDI file again: nvidia-ctk cdi generate",
        ConfigError,
    ),
    Fault(
        None,
        "unknown runtime specified",
        "the engine has no such container runtime",
        "install nvidia-container-toolkit and run: nvidia-ctk runtime configure",
    ),
    Fault(
        409,
        "is already in use by container",
        "a container that is not ftl's has the name",
        "remove or rename that container",
    ),
    Fault(
        500,
        "that name is already in use",
        "a container that is not ftl's has the name",
        "remove or rename that container",
    ),
    Fault(None, "address already in use", "a process of this machine uses the port", "end it or use another port"),
    Fault(None, "port is already allocated", "another container uses the port", "end it or use another port"),
    Fault(
        400,
        "bind source path does not exist",
        "a path to be mounted is not on the engine's machine",
        "check the path; the engine must run on this machine and, on a Mac, share that folder",
        ConfigError,
    ),
    Fault(
        400,
        "invalid characters for a local volume name",
        "a path to be mounted is not absolute",
        "give an absolute path",
        ConfigError,
    ),
    Fault(
        None,
        "executable file not found",
        "the image has no `python`",
        "use an image made by `ftl images build`, or one with python on PATH",
        ConfigError,
    ),
    Fault(None, "unable to find user", "the image does not know the user", "use a numeric user id", ConfigError),
    Fault(
        None,
        "error setting rlimit",
        "the engine may not raise resource limits",
        "start the engine with CAP_SYS_RESOURCE",
    ),
    Fault(400, "range of cpus is from", "`cpus` is more than this machine has", "lower `cpus`", ConfigError),
    Fault(400, "minimum memory limit allowed", "`memory` is too small", "raise `memory`", ConfigError),
    Fault(
        400,
        "invalid reference format",
        "`image` is not a valid reference",
        "write repository:tag@sha256:digest, all lower case",
        ConfigError,
    ),
    Fault(409, "is not running", "the container is not running", "see: ftl ps"),
    Fault(404, "no such container", "the container is gone", "resume the run with: ftl resume ID"),
)
"""The error catalogue. The first row that fits decides."""


def explain(status: int | None, text: str) -> FtlError:
    """The one sentence for what an engine said, its own text kept behind it."""
    said = " ".join(text.split())
    for fault in FAULTS:
        if (status is None or fault.status in (None, status)) and fault.fragment in said.lower():
            return fault.error(Problem("docker", fault.sentence, f"the engine said: {said}", fault.remedy))
    return BackendError(Problem("docker", "the engine refused", f"it said: {said}"))
