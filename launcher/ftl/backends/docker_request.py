"""What the Docker engine is asked for: one attempt as the body of its create call. Pure, and without secrets."""

import getpass
import os
from pathlib import Path
from typing import Any

from ftl.backends.secret_files import memory_folder, secrets_dir
from ftl.contract import (
    BUNDLE_CODE,
    CONTAINER_BUNDLE,
    CONTAINER_CACHE,
    CONTAINER_MOUNTS,
    CONTAINER_RUN,
    CONTAINER_SECRETS,
    JOB_FILE,
    Bundle,
    Gpu,
    JobSpec,
    Paths,
)

RUN_LABEL, ATTEMPT_LABEL, BUNDLE_LABEL = "io.ftl.run", "io.ftl.attempt", "io.ftl.bundle"
GIB = 2**30
_TMPFS_OPTIONS = "rw,exec,nosuid,nodev,mode=1777"  # exec: triton and inductor load the libraries they compile


def container_name(spec: JobSpec) -> str:
    """The name of an attempt's container, for people; labels are what finds it."""
    return f"ftl-{spec.run_id}-{spec.attempt}"


def job_inside(spec: JobSpec) -> JobSpec:
    """The job with its paths as the container sees them."""
    paths = Paths(
        bundle=CONTAINER_BUNDLE,
        run=CONTAINER_RUN,
        cache=CONTAINER_CACHE,
        mounts={mount.name: f"{CONTAINER_MOUNTS}/{mount.name}" for mount in spec.mounts},
        secrets=CONTAINER_SECRETS if spec.secrets else None,
    )
    return spec.model_copy(update={"paths": paths})


def write_job(spec: JobSpec, run_dir: Path) -> None:
    """Put job.json into the run directory, whole or not at all."""
    temporary = run_dir / f".{JOB_FILE}.new"
    temporary.write_text(job_inside(spec).model_dump_json(indent=1))
    temporary.replace(run_dir / JOB_FILE)


def request(spec: JobSpec, bundle: Bundle, run_dir: Path, *, image: str) -> dict[str, Any]:  # Any: the engine's JSON
    """The body of the engine's create call: all of it, and nothing that is secret."""
    resources = spec.resources
    host: dict[str, Any] = {
        "Mounts": _mounts(spec, bundle, run_dir),
        "Init": True,
        "IpcMode": "private",
        "ShmSize": int(resources.shm_gib * GIB),
        "ReadonlyRootfs": True,
        "Tmpfs": {"/tmp": _TMPFS_OPTIONS},
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}},
    }
    if resources.gpus:
        host["DeviceRequests"] = [_device_request(resources.gpus)]
        host["Ulimits"] = [  # NCCL pins memory; NVIDIA's advice for its containers
            {"Name": "memlock", "Soft": -1, "Hard": -1},
            {"Name": "stack", "Soft": 67108864, "Hard": 67108864},
        ]
    if resources.cpus is not None:
        host["NanoCpus"] = int(resources.cpus * 1e9)
    if resources.memory_gib is not None:
        host["Memory"] = host["MemorySwap"] = int(resources.memory_gib * GIB)
    return {
        "Image": image,
        "Entrypoint": ["python", "-m", "ftl_runtime"],
        "Cmd": [f"{CONTAINER_RUN}/{JOB_FILE}"],
        "Env": [f"{key}={value}" for key, value in _environment(spec).items()],
        "User": f"{os.getuid()}:{os.getgid()}",
        "WorkingDir": CONTAINER_RUN,
        "Labels": {RUN_LABEL: spec.run_id, ATTEMPT_LABEL: str(spec.attempt), BUNDLE_LABEL: bundle.sha256},
        "StopTimeout": spec.grace_s,
        "HostConfig": host,
    }


def _environment(spec: JobSpec) -> dict[str, str]:
    """The container's variables. There is no passwd entry for the caller, so who and where home is must be said."""
    user = _user_name()
    return {
        "HOME": "/tmp",
        "USER": user,
        "LOGNAME": user,
        "HF_HOME": f"{CONTAINER_CACHE}/hf",
        "TORCHINDUCTOR_CACHE_DIR": f"{CONTAINER_CACHE}/torch",
        "TRITON_CACHE_DIR": f"{CONTAINER_CACHE}/triton",
        "PYTHONUNBUFFERED": "1",
        **({"NVIDIA_DRIVER_CAPABILITIES": "compute,utility"} if spec.resources.gpus else {}),
        **spec.env,
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": f"{CONTAINER_BUNDLE}/{BUNDLE_CODE}",
    }


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "ftl"


def _mounts(spec: JobSpec, bundle: Bundle, run_dir: Path) -> list[dict[str, Any]]:  # Any: the engine's JSON
    """Bind mounts and the cache volume. Never the `volumes` form: it makes a missing source as root's directory."""
    bound = [(bundle.path, CONTAINER_BUNDLE, True), (str(run_dir), CONTAINER_RUN, False)]
    bound += [(mount.source, f"{CONTAINER_MOUNTS}/{mount.name}", True) for mount in spec.mounts]
    folder = memory_folder()
    if spec.secrets and folder is not None:
        bound.append((str(secrets_dir(folder, spec.run_id, spec.attempt)), CONTAINER_SECRETS, True))
    mounts: list[dict[str, Any]] = [
        {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only}
        for source, target, read_only in bound
    ]
    # One volume a user: the caches hold compiled code, which nobody should get from someone else's job.
    return [*mounts, {"Type": "volume", "Source": f"ftl-cache-{os.getuid()}", "Target": CONTAINER_CACHE}]


def _device_request(gpus: Gpu) -> dict[str, Any]:  # Any: the engine's JSON
    request: dict[str, Any] = {"Capabilities": [["gpu"]]}
    if isinstance(gpus, tuple):
        return {**request, "DeviceIDs": list(gpus)}
    return {**request, "Count": -1 if gpus == "all" else gpus}
