"""The Modal backend through the conformance tests that every backend passes, against the emulated Modal.

Three of them are put otherwise: Modal starts a killed job again itself, and its client does not live through a fork.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from modal_emulator import ModalEmulator

from ftl import jobs, launch
from ftl.backends.modal import ModalBackend
from ftl.backends.modal_cloud import ModalCloud
from ftl.jobs import RunRecord

sys.path.insert(0, str(Path(__file__).parents[1] / "backends"))
from test_conformance import *  # noqa: F403
from test_conformance import Watcher, ended, submitted, wait, wait_for_event

SUBMIT = """
import os, signal, sys
from ftl import jobs, launch
record = jobs.load(sys.argv[1])
launch.submit(record, launch.backend_of(record))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def backend(modal_server: ModalEmulator, monkeypatch: pytest.MonkeyPatch) -> ModalBackend:
    monkeypatch.setattr(ModalBackend, "poll_s", 0.1)
    return ModalBackend(ModalCloud())


def test_follow_starts_a_killed_job_again_and_ends_with_its_result(
    backend: ModalBackend, run: Callable[..., RunRecord], modal_server: ModalEmulator
) -> None:
    record = launch.submit(run("hang-once"), backend)
    assert record.handle is not None
    wait_for_event(backend, record.handle)
    modal_server.kill(modal_server.wait_for_container(str(record.handle.ref["call"])))
    outcome = launch.follow(record, backend, Watcher())
    assert outcome.result is not None
    assert [attempt.number for attempt in outcome.record.attempts] == [1]


def test_follow_gives_up_after_attempts_that_save_nothing(
    modal_server: ModalEmulator, backend: ModalBackend, run: Callable[..., RunRecord]
) -> None:
    """After `retries` starts, as Modal counts them."""
    backend = ModalBackend(ModalCloud(retries=1))
    record = launch.submit(run("killed"), backend)
    outcome = launch.follow(record, backend, Watcher())
    assert (outcome.result, outcome.state.cause, outcome.state.exit_code) == (None, "killed", 137)
    assert record.handle is not None
    assert modal_server.ends(str(record.handle.ref["call"])) == ["failure", "failure"]


def test_job_outlives_the_launcher(backend: ModalBackend, run: Callable[..., RunRecord]) -> None:
    record = run("hang")
    assert subprocess.run([sys.executable, "-c", SUBMIT, record.id], check=False).returncode == -9
    stored = jobs.load(record.id)
    assert stored.handle is not None
    wait_for_event(backend, stored.handle)
    assert backend.status(stored.handle).phase == "running"
    backend.cancel(stored.handle)
    assert wait(backend, stored.handle, ended).exit_code == 75


def test_run_of_a_day_and_more_goes_on_in_the_next_container_by_itself(
    backend: ModalBackend, run: Callable[..., RunRecord], modal_server: ModalEmulator
) -> None:
    handle = submitted(run("deadline-twice", timeout_s=14 * 86400), backend)
    state = wait(backend, handle, ended)
    assert (state.exit_code, state.cause) == (0, "done")
    assert backend.read(handle, "log.txt", 0).count(b"attempt 1 of") == 3
    calls = [c for c in modal_server.state["calls"].values() if c["app_id"] == _app_id(modal_server, handle.run_id)]
    assert len(calls) == 3, "each is a call of its own, so none counts as a retry"


def test_run_that_has_used_its_time_ends_by_its_deadline(backend: ModalBackend, run: Callable[..., RunRecord]) -> None:
    handle = submitted(run("deadline-twice", timeout_s=1), backend)
    state = wait(backend, handle, ended)
    assert (state.exit_code, state.cause) == (75, "deadline")
    assert backend.read(handle, "log.txt", 0).count(b"attempt 1 of") == 1, "no container is paid for to do nothing"


def test_run_stops_before_its_budget_is_spent_and_has_a_receipt(
    backend: ModalBackend, run: Callable[..., RunRecord]
) -> None:
    """At a dollar a second, a hundred seconds: the first deadline is that of the money, so nothing goes on."""
    backend = ModalBackend(ModalCloud(usd_per_hour=3600, max_usd=100))
    handle = submitted(run("deadline-twice", timeout_s=14 * 86400), backend)
    state = wait(backend, handle, ended)
    assert (state.exit_code, state.cause) == (75, "deadline")
    assert state.message == "its budget of $100 is spent, by the prices at launch"
    assert backend.read(handle, "log.txt", 0).count(b"attempt 1 of") == 1
    spent = backend.spent(handle)
    assert spent is not None
    assert spent.usd_per_hour == 3600
    assert 30 <= spent.usd <= 100, "as much as the container ran, and what it took to come up"


def test_containers_that_die_use_up_the_budget(backend: ModalBackend, run: Callable[..., RunRecord]) -> None:
    backend = ModalBackend(ModalCloud(usd_per_hour=3600, max_usd=70))
    handle = submitted(run("killed"), backend)
    state = wait(backend, handle, ended)
    assert (state.cause, state.message) == ("deadline", "its budget of $70 is spent, by the prices at launch")
    assert backend.read(handle, "log.txt", 0).count(b"attempt 1 of") == 1


def test_data_is_prepared_without_a_gpu_before_the_gpu_is_asked_for(
    backend: ModalBackend, run: Callable[..., RunRecord], modal_server: ModalEmulator
) -> None:
    backend = ModalBackend(ModalCloud(gpu="H100", image="cpu"))
    record = run("done")
    record = record.model_copy(update={"spec": record.spec.model_copy(update=backend.spec_fields())})
    jobs.save(record)
    handle = submitted(record, backend)
    assert wait(backend, handle, ended).cause == "done"
    log = backend.read(handle, "log.txt", 0).decode()
    assert [line.split()[-1] for line in log.splitlines()] == ["preprocess", "train"]


def test_checkpoint_is_there_after_a_kill_because_it_was_committed(
    backend: ModalBackend, run: Callable[..., RunRecord], modal_server: ModalEmulator
) -> None:
    assert _goes_on_after_a_kill(backend, run("save-then-hang"), modal_server)


def test_without_the_commit_the_checkpoint_would_be_lost(
    backend: ModalBackend,
    run: Callable[..., RunRecord],
    modal_server: ModalEmulator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The emulator loses what was not committed, as Modal does: so the test above can fail."""
    from ftl.backends import modal_app as module

    source = module.entry_file().read_text()
    call = "modal.Volume.from_name(name, environment_name=environment).commit()"
    assert source.count(call) == 1
    mutant = tmp_path / "modal_entry.py"
    mutant.write_text(source.replace(call, "modal.Volume.from_name(name, environment_name=environment)"))
    monkeypatch.setattr(module, "entry_file", lambda: mutant)
    assert not _goes_on_after_a_kill(backend, run("save-then-hang"), modal_server)


def _goes_on_after_a_kill(backend: ModalBackend, record: RunRecord, server: ModalEmulator) -> bool:
    """Whether the next container found the checkpoint and ended, rather than beginning at the beginning."""
    handle = submitted(record, backend)
    call = str(handle.ref["call"])
    container = server.wait_for_container(call)
    server.wait_for_log(f"saved {record.id}")
    time.sleep(1.0)  # a commit follows at once; without one there is nothing to wait for
    server.kill(container)
    again = f"saved {record.id}"
    server.wait_until(
        lambda _: server.log_text().count(again) > 1 or backend.status(handle).phase == "ended", "it is started again"
    )
    goes_on = server.log_text().count(again) == 1
    backend.cancel(handle, now=True)
    wait(backend, handle, ended)
    return goes_on


def _app_id(server: ModalEmulator, run_id: str) -> str:
    return next(a["id"] for a in server.state["apps"].values() if a["name"] == f"ftl-{run_id}")
