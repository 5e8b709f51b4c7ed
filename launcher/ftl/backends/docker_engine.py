"""The connection to this machine's Docker engine, and what the engine has."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlparse

from ftl.backends.docker_faults import explain
from ftl.backends.docker_request import GIB
from ftl.contract import JobSpec
from ftl.errors import BackendError, Problem, StorageError

if TYPE_CHECKING:
    from docker import DockerClient

_MIN_FREE_BYTES = 64 * 2**20
"""Below this the engine's disk counts as full: its own message about that is misleading."""


@contextmanager
def engine() -> Iterator["DockerClient"]:
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


def engine_problems(client: "DockerClient", spec: JobSpec) -> list[Problem]:
    """What the job asks for and this engine has not: cores, main memory."""
    problems = []
    info = client.info()
    cpus, memory_gib = spec.resources.cpus, spec.resources.memory_gib
    if cpus is not None and cpus > info["NCPU"]:
        problems.append(Problem("cpus", f"{cpus:g}", f"this engine has {info['NCPU']}"))
    if memory_gib is not None and memory_gib * GIB > info["MemTotal"]:
        problems.append(Problem("memory", f"{memory_gib:g}", f"this engine has {info['MemTotal'] / GIB:.1f} GiB"))
    return problems
