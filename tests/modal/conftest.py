"""One emulated Modal for a file's tests, and a client that can reach nothing else."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from modal_emulator import ModalEmulator


@pytest.fixture(scope="session")
def modal_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModalEmulator]:
    with ModalEmulator.start(tmp_path_factory.mktemp("modal"), env={"OMP_NUM_THREADS": "1"}) as emulator:
        yield emulator
        assert emulator.log.read_text() == "", "the emulator had something to say"


@pytest.fixture(scope="module")
def modal_client(modal_process: ModalEmulator) -> Iterator[ModalEmulator]:
    """The emulator, as what clients in this process and in those it starts talk to, and nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("MODAL_")]:
            patch.delenv(name)
        for name, value in modal_process.client_env(modal_process.log.parent).items():
            patch.setenv(name, value)
        patch.setattr(socket.socket, "connect", _only_loopback(socket.socket.connect))
        yield modal_process


@pytest.fixture
def modal_server(modal_client: ModalEmulator) -> Iterator[ModalEmulator]:
    """The emulator with its usual behaviour. Nothing it holds is ever wrong when a test ends."""
    assert os.environ["MODAL_SERVER_URL"].startswith("http://127.0.0.1:")
    assert not Path(os.environ["MODAL_CONFIG_PATH"]).exists()
    usual = modal_client.behave()
    yield modal_client
    modal_client.heal()
    modal_client.behave(**usual)
    modal_client.fail_builds()
    assert modal_client.fsck() == []


def _only_loopback(connect):  # type: ignore[no-untyped-def]
    def guarded(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            assert isinstance(address, tuple) and str(address[0]) in ("127.0.0.1", "::1", "localhost"), (
                f"a test wanted to connect to {address}"
            )
        connect(self, address)

    return guarded
