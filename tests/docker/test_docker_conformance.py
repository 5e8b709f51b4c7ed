"""The Docker backend through the conformance tests that every backend passes."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ftl.backends.docker import DockerBackend, DockerCloud
from ftl.backends.docker_request import BUNDLE_LABEL
from ftl.image import BuiltImage

sys.path.insert(0, str(Path(__file__).parents[1] / "backends"))
from test_conformance import *  # noqa: F403

if TYPE_CHECKING:
    from docker import DockerClient


@pytest.fixture
def backend(engine: "DockerClient", built: BuiltImage) -> Iterator[DockerBackend]:
    yield DockerBackend(DockerCloud(image="cpu"))
    for container in engine.containers.list(all=True, filters={"label": f"{BUNDLE_LABEL}={'b' * 64}"}):
        container.remove(force=True)
