"""What every backend must do, checked on each with a stand-in runtime that keeps the contract."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ftl import jobs, launch
from ftl.backends import Backend
from ftl.contract import Bundle, Event, JobHandle, JobSpec, JobState
from ftl.jobs import RunRecord

STANDIN = Path(__file__).parent / "standin"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    path = tmp_path / "bundle"
    package = path / "code/ftl_runtime"
    package.mkdir(parents=True)
    for source in (STANDIN / "ftl_runtime").glob("*.py"):
        (package / source.name).write_text(source.read_text())
    return Bundle(sha256="b" * 64, path=str(path), size_bytes=1)


@pytest.fixture
def run(bundle: Bundle, backend: Backend) -> Callable[..., RunRecord]:
    """A saved record of a run that does what `what` says."""

    def make(what: str, **fields: object) -> RunRecord:
        run_id = jobs.new_id("conformance")
        env = {"STANDIN": what, "COLOUR": "blue"}
        spec = JobSpec.model_validate({**backend.spec_fields(), "run_id": run_id, "env": env, "grace_s": 10, **fields})
        record = RunRecord(
            id=run_id,
            name="conformance",
            created_at=time.time(),
            ftl_version="0",
            config_path="cfg.yml",
            output_dir="out",
            provider=backend.cloud.provider,
            cloud=backend.cloud.model_dump(mode="json"),
            spec=spec,
            bundle=bundle,
        )
        jobs.save(record)
        return record

    return make


def wait(backend: Backend, handle: JobHandle, until: Callable[[JobState], bool], limit_s: float = 40) -> JobState:
    deadline = time.monotonic() + limit_s
    while not until(state := backend.status(handle)):
        assert time.monotonic() < deadline, f"still {state} after {limit_s} s"
        time.sleep(0.05)
    return state


def ended(state: JobState) -> bool:
    return state.phase == "ended"


def submitted(record: RunRecord, backend: Backend) -> JobHandle:
    handle = launch.submit(record, backend).handle
    assert handle is not None
    return handle


def wait_for_event(backend: Backend, handle: JobHandle, limit_s: float = 40) -> None:
    deadline = time.monotonic() + limit_s
    while not backend.read(handle, "events.jsonl", 0):
        assert time.monotonic() < deadline, "no event"
        time.sleep(0.05)


class Watcher:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)


def test_preflight_finds_nothing_wrong_with_a_plain_job(backend: Backend, run: Callable[..., RunRecord]) -> None:
    assert backend.preflight(run("done").spec) == []


def test_preflight_names_a_secret_that_is_not_set(backend: Backend, run: Callable[..., RunRecord]) -> None:
    (problem,) = backend.preflight(run("done", secrets=["FTL_TEST_ABSENT"]).spec)
    assert "FTL_TEST_ABSENT" in str(problem)


def test_finished_job_has_exit_0_its_files_and_its_environment(
    backend: Backend, run: Callable[..., RunRecord], tmp_path: Path
) -> None:
    handle = submitted(run("done"), backend)
    state = wait(backend, handle, ended)
    assert (state.exit_code, state.cause) == (0, "done")
    backend.fetch(handle, "output", tmp_path / "copy")
    assert (tmp_path / "copy/model.txt").read_text() == "blue"
    assert (tmp_path / "copy/model.txt").stat().st_uid == os.getuid()


def test_crashed_job_keeps_its_verdict_and_message(backend: Backend, run: Callable[..., RunRecord]) -> None:
    state = wait(backend, submitted(run("crash"), backend), ended)
    assert (state.exit_code, state.cause) == (70, "crash")
    assert state.message == "ValueError: the stand-in was told to crash"


def test_same_attempt_submitted_twice_is_one_job(backend: Backend, run: Callable[..., RunRecord]) -> None:
    record = run("done")
    handle = submitted(record, backend)
    again = backend.submit(jobs.load(record.id).spec, record.bundle, record.dir)
    assert again == handle
    wait(backend, handle, ended)
    assert backend.read(handle, "log.txt", 0).count(b"attempt 1") == 1


def test_read_goes_on_from_an_offset_and_misses_nothing(backend: Backend, run: Callable[..., RunRecord]) -> None:
    handle = submitted(run("done"), backend)
    wait(backend, handle, ended)
    whole = backend.read(handle, "log.txt", 0)
    assert backend.read(handle, "log.txt", 4) == whole[4:]
    assert backend.read(handle, "log.txt", len(whole)) == b""
    assert backend.read(handle, "no-such-file", 0) == b""


def test_cancel_lets_the_job_save_and_is_idempotent(backend: Backend, run: Callable[..., RunRecord]) -> None:
    handle = submitted(run("hang"), backend)
    wait_for_event(backend, handle)
    backend.cancel(handle)
    state = wait(backend, handle, ended)
    assert (state.exit_code, state.cause) == (75, "signal")
    backend.cancel(handle)
    backend.cancel(handle, now=True)
    assert backend.status(handle) == state


def test_cancel_now_kills_at_once(backend: Backend, run: Callable[..., RunRecord]) -> None:
    handle = submitted(run("hang"), backend)
    wait_for_event(backend, handle)
    backend.cancel(handle, now=True)
    assert wait(backend, handle, ended).cause in ("killed", "lost")


def test_job_is_found_again_from_its_record(backend: Backend, run: Callable[..., RunRecord]) -> None:
    record = launch.submit(run("hang"), backend)
    stored = jobs.load(record.id)
    other = launch.backend_of(stored)
    assert stored.handle is not None
    assert wait(other, stored.handle, lambda s: s.phase == "running").phase == "running"
    other.cancel(stored.handle, now=True)
    wait(other, stored.handle, ended)


def test_removed_job_is_lost_or_keeps_its_verdict(backend: Backend, run: Callable[..., RunRecord]) -> None:
    handle = submitted(run("done"), backend)
    wait(backend, handle, ended)
    backend.remove(handle)
    backend.remove(handle)
    assert backend.status(handle).phase == "ended"


def test_follow_starts_a_killed_job_again_and_ends_with_its_result(
    backend: Backend, run: Callable[..., RunRecord]
) -> None:
    record = launch.submit(run("hang-once"), backend)
    assert record.handle is not None
    wait_for_event(backend, record.handle)
    backend.cancel(record.handle, now=True)
    watcher = Watcher()
    outcome = launch.follow(record, backend, watcher)
    assert outcome.result is not None
    assert [a.number for a in outcome.record.attempts] == [1, 2]
    assert "starting attempt 2" in str([e.data for e in watcher.events if e.event == "warning"])


def test_follow_does_not_start_a_stopped_job_again(backend: Backend, run: Callable[..., RunRecord]) -> None:
    record = launch.submit(run("hang"), backend)
    assert record.handle is not None
    wait_for_event(backend, record.handle)
    jobs.update(record.id, stop_requested_at=time.time())
    backend.cancel(record.handle, now=True)
    outcome = launch.follow(record, backend, Watcher())
    assert len(outcome.record.attempts) == 1


def test_follow_gives_up_after_attempts_that_save_nothing(
    backend: Backend, run: Callable[..., RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    record = launch.submit(run("hang"), backend)

    def kill_when_up(_: float) -> None:
        current = jobs.load(record.id)
        assert current.handle is not None
        lines = backend.read(current.handle, "events.jsonl", 0).decode().splitlines()
        if any(json.loads(line)["attempt"] == current.handle.attempt for line in lines):
            backend.cancel(current.handle, now=True)
        time.sleep(0.05)

    outcome = launch.follow(record, backend, Watcher(), sleep=kill_when_up)
    assert outcome.result is None
    assert len(outcome.record.attempts) == 3


def test_job_outlives_the_launcher(backend: Backend, run: Callable[..., RunRecord]) -> None:
    record = run("hang")
    pid = os.fork()
    if pid == 0:
        launch.submit(record, backend)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    stored = jobs.load(record.id)
    assert stored.handle is not None
    wait_for_event(backend, stored.handle)
    assert backend.status(stored.handle).phase == "running"
    backend.cancel(stored.handle)
    assert wait(backend, stored.handle, ended).exit_code == 75
