from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer
from source_worker import SourceWorker


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def worker(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SourceWorker]:
    """Reads sources in a process whose Hub is `hub`."""
    worker = SourceWorker({"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path_factory.mktemp("hf"))})
    yield worker
    worker.close()
