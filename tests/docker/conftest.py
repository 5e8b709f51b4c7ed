"""What tests of the Docker backend share: a real engine, one image, one registry, a stand-in runtime.

`.ci/engine.sh` prepares the machine. Without an engine the tests are skipped with the reason; with CI=true they fail.
"""

import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from docker_places import BASE, DEBIAN_CLIENT, HERE, PORT, Workplace, build_cpu_image, unavailable

from ftl import image
from ftl.backends.docker import DockerBackend, DockerCloud
from ftl.backends.docker_request import RUN_LABEL

if TYPE_CHECKING:
    from docker import DockerClient


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.docker)


@pytest.fixture(scope="session")
def engine() -> "Iterator[DockerClient]":
    """A connection to a real engine that has the test base image."""
    docker = pytest.importorskip("docker", reason="the docker package is not installed")
    try:
        client = docker.from_env(timeout=120)
        client.ping()
    except docker.errors.DockerException as error:
        unavailable(f"no Docker engine: {error}")
    if not client.images.list(name=BASE):
        unavailable(f"the engine has no {BASE}")
    yield client
    client.close()


@pytest.fixture(scope="session")
def registry() -> str:
    """host:port of a registry without login on this machine."""
    with socket.socket() as probe:
        probe.settimeout(2)
        if probe.connect_ex(("127.0.0.1", PORT)) != 0:
            unavailable(f"no registry on 127.0.0.1:{PORT}")
    return f"127.0.0.1:{PORT}"


@pytest.fixture(scope="session")
def built(engine: "DockerClient") -> image.BuiltImage:
    """The image `cpu` on the test base, built once a session; seconds when the engine has the layers."""
    return build_cpu_image()


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


@pytest.fixture
def place(workplace: Workplace, engine: "DockerClient", built: image.BuiltImage) -> Iterator[Workplace]:
    """As `workplace`, with engine and image; its containers are removed afterwards."""
    yield workplace
    for container in engine.containers.list(all=True, filters={"label": f"{RUN_LABEL}={workplace.run_id}"}):
        container.remove(force=True)


@pytest.fixture
def make_backend() -> Callable[..., DockerBackend]:
    return lambda **keys: DockerBackend(DockerCloud(**{"image": "cpu", **keys}))


@pytest.fixture
def docker_cli(engine: "DockerClient") -> Callable[..., str]:
    """Runs the docker command line; its output."""

    def run(*arguments: str) -> str:
        client = DEBIAN_CLIENT if Path(DEBIAN_CLIENT).exists() else "docker"
        done = subprocess.run([client, *arguments], capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
