"""Runs on Modal from machines that did not launch them: nothing but the token and the cloud file is there."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from modal_emulator import ModalEmulator

from ftl import jobs
from ftl.backends.modal import ModalBackend
from ftl.backends.modal_cloud import ModalCloud
from ftl.commands import jobs as commands
from ftl.errors import RunError
from ftl.jobs import RunRecord

sys.path.insert(0, str(Path(__file__).parents[1] / "backends"))
from test_conformance import bundle, ended, run, submitted, wait, wait_for_event  # noqa: F401


@pytest.fixture
def backend(modal_server: ModalEmulator, monkeypatch: pytest.MonkeyPatch) -> ModalBackend:
    monkeypatch.setattr(ModalBackend, "poll_s", 0.1)
    return ModalBackend(ModalCloud())


@pytest.fixture
def other_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Goes on at a machine where nothing is known."""
    numbers = iter(range(9))

    def move() -> None:
        monkeypatch.setenv("FTL_STATE_DIR", str(tmp_path / f"machine-{next(numbers)}"))
        assert jobs.all_records() == []

    return move


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    path = tmp_path / "modal.yml"
    path.write_text("provider: modal\n")
    return path


def test_run_is_stopped_resumed_killed_and_removed_from_other_machines(
    backend: ModalBackend,
    run: Callable[..., RunRecord],  # noqa: F811
    modal_server: ModalEmulator,
    other_machine: Callable[[], None],
    cloud: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = submitted(run("hang"), backend)
    run_id = first.run_id
    wait_for_event(backend, first)

    other_machine()
    assert commands.stop(run_id[:6], cloud=cloud, now=False) == 0
    state = backend.status(first)
    assert (state.cause, state.exit_code) == ("signal", 75), "it has saved and ended by itself"

    other_machine()
    assert commands.resume(run_id, cloud=cloud, detach=True, as_json=True) == 0
    second = jobs.load(run_id).handle
    assert second is not None
    assert (second.attempt, second.ref["call"] != first.ref["call"]) == (2, True)
    wait(backend, second, lambda state: state.phase == "running")
    with pytest.raises(RunError, match="is running"):
        commands.rm(run_id, cloud=cloud, force=False)

    other_machine()
    assert commands.stop(run_id, cloud=cloud, now=True) == 0
    assert backend.status(second).cause == "lost", "it was killed and could say nothing"
    modal_server.wait_for_end(str(second.ref["call"]))

    other_machine()
    assert commands.rm(run_id, cloud=cloud, force=False) == 0
    assert not [path for path in modal_server.committed("ftl") if path.startswith(f"runs/{run_id}")]
    assert not jobs.is_known(run_id)
    capsys.readouterr()
    assert commands.ps(cloud=cloud, as_json=True) == 0
    assert run_id not in capsys.readouterr().out


def test_running_run_is_removed_by_force_from_another_machine(
    backend: ModalBackend,
    run: Callable[..., RunRecord],  # noqa: F811
    modal_server: ModalEmulator,
    other_machine: Callable[[], None],
    cloud: Path,
) -> None:
    handle = submitted(run("hang"), backend)
    wait_for_event(backend, handle)
    other_machine()
    assert commands.rm(handle.run_id, cloud=cloud, force=True) == 0
    modal_server.wait_for_end(str(handle.ref["call"]))
    assert not [path for path in modal_server.committed("ftl") if path.startswith(f"runs/{handle.run_id}")]


def test_run_that_no_machine_launched_is_said_to_be_unknown_by_its_cloud(
    backend: ModalBackend, other_machine: Callable[[], None], cloud: Path
) -> None:
    other_machine()
    with pytest.raises(RunError, match=r"run 'nobody'.*is not known to .*modal\.yml"):
        commands.stop("nobody", cloud=cloud, now=False)
