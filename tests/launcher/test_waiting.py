"""A run that waits for its machine says what for: to whoever follows it, in `ftl ps` and in `ftl logs`."""

import json
from collections.abc import Callable
from pathlib import Path
from threading import Barrier

import pytest

from ftl import jobs, launch
from ftl.backends.local import LocalBackend, LocalCloud
from ftl.commands import jobs as commands
from ftl.contract import Bundle, Event, JobHandle, JobSpec, JobState
from ftl.jobs import Attempt, RunRecord

ENDED = JobState(phase="ended", exit_code=3, cause="environment", message="no")


class Waiting(LocalBackend):
    """Says that it waits, for what it is given, and ends then."""

    def __init__(self, *messages: str | None) -> None:
        super().__init__(LocalCloud())
        self._states = [*(JobState(phase="queued", message=message) for message in messages), ENDED]

    def status(self, handle: JobHandle) -> JobState:
        return self._states.pop(0) if len(self._states) > 1 else self._states[0]

    def read(self, handle: JobHandle, name: str, offset: int) -> bytes:
        return b""


class Heard:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    handle = JobHandle(provider="local", run_id="abc234-w", attempt=1, ref={"run_dir": str(tmp_path)})
    record = RunRecord(
        id="abc234-w", name="w", created_at=1.0, ftl_version="0", config_path="cfg.yml", output_dir="out",
        provider="local", cloud={"provider": "local"}, spec=JobSpec(run_id="abc234-w"),
        bundle=Bundle(sha256="b" * 64, path=str(tmp_path), size_bytes=1),
        attempts=(Attempt(number=1, submitted_at=1.0, handle=handle),),
    )  # fmt: skip
    jobs.save(record)
    return record


def test_follower_is_told_once_for_each_reason(record: RunRecord) -> None:
    heard = Heard()
    backend = Waiting(None, "a queue", "a queue", "its image", "its image")
    launch.follow(record, backend, heard, sleep=lambda seconds: None)
    told = [event.data["message"] for event in heard.events if event.event == "waiting"]
    assert told == ["a queue", "its image"]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def wait(message: str) -> None:
        monkeypatch.setattr(commands, "backend_of", lambda record: Waiting(message))

    return wait


def test_ps_and_logs_tell_what_a_run_waits_for(
    record: RunRecord, waits: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    waits("a [very] long queue")
    commands.ps(cloud=None, as_json=True)
    line = json.loads(capsys.readouterr().out)
    assert (line["state"], line["message"]) == ("queued", "a [very] long queue")
    commands.ps(cloud=None, as_json=False)
    assert "queued: a [very] long queue" in " ".join(capsys.readouterr().out.split())
    commands.logs(record.id, cloud=None, follow=False)
    assert "is queued: a [very] long queue" in " ".join(capsys.readouterr().err.split())


class Meeting(Waiting):
    """Answers when another one is asked, too."""

    _both = Barrier(2)

    def status(self, handle: JobHandle) -> JobState:
        self._both.wait(timeout=60)
        return ENDED


def test_ps_asks_for_several_runs_at_the_same_time(
    record: RunRecord, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each may be an answer of a server away; the newest run is told of first."""
    jobs.save(record.model_copy(update={"id": "zyx987-w", "created_at": 2.0}))
    monkeypatch.setattr(commands, "backend_of", lambda record: Meeting())
    commands.ps(cloud=None, as_json=True)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["run"], line["state"]) for line in told] == [
        ("zyx987-w", "environment"),
        ("abc234-w", "environment"),
    ]


def test_logs_tell_why_there_are_none(
    record: RunRecord, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "backend_of", lambda record: Waiting())
    commands.logs(record.id, cloud=None, follow=False)
    assert "has ended without a log: no" in " ".join(capsys.readouterr().err.split())
