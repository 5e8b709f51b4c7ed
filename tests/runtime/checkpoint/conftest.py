"""Servers, and a process that talks to stores: shared by the tests of a session, since they take seconds to start."""

from collections.abc import Iterator

import pytest
from hub_objects import Objects
from hub_server import HubServer
from store_place import s3_client
from store_worker import StoreWorker


@pytest.fixture(scope="session")
def hub_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    with HubServer(xet=tmp_path_factory.mktemp("xet")) as server:
        server.accounts["hf_ann"] = {"name": "ann", "auth": {"accessToken": {"role": "write"}}}
        yield server


@pytest.fixture
def hub(hub_of_session: HubServer) -> Iterator[HubServer]:
    """A Hub where everything is all right; tests have repositories of their own in it."""
    yield hub_of_session
    hub_of_session.heal()
    hub_of_session.part_bytes = hub_of_session.quota_bytes = None
    hub_of_session.has_cdn = False
    hub_of_session.objects = Objects()


@pytest.fixture(scope="session")
def worker(hub_of_session: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreWorker]:
    home = str(tmp_path_factory.mktemp("home"))
    mine = {"HF_HOME": home, "HOME": home, "HF_TOKEN": "hf_ann", "FTL_STORE_SILENCE_S": "1"}
    worker = StoreWorker({"HF_ENDPOINT": hub_of_session.url, **mine})
    yield worker
    worker.close()


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of a moto with the bucket `lake`."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    s3_client(url).create_bucket(Bucket="lake")
    yield url
    server.stop()


@pytest.fixture(scope="session")
def gs() -> Iterator[str]:
    """The address of a GCS with the bucket `lake`."""
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="lake")
    server.start()
    yield "http://{}:{}".format(*server._api._httpd.server_address)
    server.stop()
