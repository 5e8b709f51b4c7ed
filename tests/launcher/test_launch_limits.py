"""The time limit of a run that lost its machine: one for all its attempts, until somebody asks for more."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest

from ftl import jobs, launch
from ftl.backends import Backend
from ftl.contract import Bundle, Event, JobHandle, JobSpec, JobState
from ftl.jobs import RunRecord


class Losing:
    """A provider that loses each machine; `seconds` pass before it does."""

    poll_s: ClassVar[float] = 0.0
    recovers: ClassVar[bool] = False

    def __init__(self, clock: list[float], seconds: float) -> None:
        self._clock, self._seconds = clock, seconds
        self.submitted: list[JobSpec] = []

    def submit(self, spec: JobSpec, bundle: Bundle, run_dir: Path) -> JobHandle:
        self.submitted.append(spec)
        return JobHandle(provider="local", run_id=spec.run_id, attempt=spec.attempt, ref={})

    def status(self, handle: JobHandle) -> JobState:
        self._clock[0] += self._seconds
        return JobState(phase="ended", exit_code=75, cause="lost")

    def read(self, handle: JobHandle, name: str, offset: int) -> bytes:
        return b""

    def remove(self, handle: JobHandle) -> None: ...


class Quiet:
    def on_event(self, event: Event) -> None: ...


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[RunRecord, Losing]]:
    clock = [1000.0]
    monkeypatch.setattr(time, "time", lambda: clock[0])

    def build(seconds: float, **spec: Any) -> tuple[RunRecord, Losing]:
        run_id = jobs.new_id("limits")
        record = RunRecord(
            id=run_id,
            name="limits",
            created_at=clock[0],
            ftl_version="0",
            config_path="cfg.yml",
            output_dir=str(tmp_path / "out"),
            provider="local",
            cloud={"provider": "local"},
            spec=JobSpec(run_id=run_id, **spec),
            bundle=Bundle(sha256="b" * 64, path=str(tmp_path), size_bytes=1),
        )
        jobs.save(record)
        return record, Losing(clock, seconds)

    return build


def followed(record: RunRecord, losing: Losing) -> RunRecord:
    backend = cast(Backend, losing)
    return launch.follow(launch.submit(record, backend), backend, Quiet()).record


def test_attempts_that_follow_by_themselves_share_the_limit_of_the_first(
    make: Callable[..., tuple[RunRecord, Losing]],
) -> None:
    record, losing = make(100, timeout_s=5000)
    followed(record, losing)
    assert [spec.limit_from for spec in losing.submitted] == [None, 1000.0, 1000.0]


def test_run_whose_limit_is_used_up_gets_no_other_machine(make: Callable[..., tuple[RunRecord, Losing]]) -> None:
    record, losing = make(200, timeout_s=300)
    assert [attempt.number for attempt in followed(record, losing).attempts] == [1, 2]


def test_resume_is_given_the_whole_limit_again(make: Callable[..., tuple[RunRecord, Losing]]) -> None:
    record, losing = make(200, timeout_s=300)
    resumed = launch.submit(followed(record, losing), cast(Backend, losing))
    assert resumed.spec.limit_from is None
    assert resumed.spec.attempt == 3
