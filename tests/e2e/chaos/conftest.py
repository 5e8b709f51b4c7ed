"""One Hub and one nursery of processes for all chaos tests of a session."""

from collections.abc import Iterator

import pytest
from campaign import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("chaos"))
    yield world
    world.close()
