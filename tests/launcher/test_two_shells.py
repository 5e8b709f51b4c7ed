"""Two launchers at one run at the same moment: one attempt is started, and whoever came second is told."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ftl import jobs, launch
from ftl.backends.local import LocalBackend, LocalCloud
from ftl.commands import jobs as commands
from ftl.contract import Bundle, Event, JobSpec
from ftl.errors import RunError
from ftl.jobs import RunRecord

STANDIN = Path(__file__).parents[1] / "backends/standin/ftl_runtime"


class Interrupted(LocalBackend):
    """This machine, but another shell does something just before a lost attempt is followed by the next."""

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        super().__init__(LocalCloud())
        self._meanwhile: Callable[[], object] | None = meanwhile

    def remove(self, handle) -> None:  # type: ignore[no-untyped-def]
        super().remove(handle)
        meanwhile, self._meanwhile = self._meanwhile, None
        if meanwhile:
            meanwhile()


class Quiet:
    def on_event(self, event: Event) -> None: ...


@pytest.fixture
def record(tmp_path: Path) -> Iterator[RunRecord]:
    """A run whose first attempt was lost with its machine."""
    code = tmp_path / "bundle/code"
    code.mkdir(parents=True)
    (code / "ftl_runtime").symlink_to(STANDIN)
    run_id = jobs.new_id("two")
    jobs.save(
        RunRecord(
            id=run_id,
            name="two",
            created_at=time.time(),
            ftl_version="0",
            config_path="cfg.yml",
            output_dir=str(tmp_path / "out"),
            provider="local",
            cloud={"provider": "local"},
            spec=JobSpec(run_id=run_id, env={"STANDIN": "hang-once", "COLOUR": "blue"}, grace_s=10),
            bundle=Bundle(sha256="b" * 64, path=str(tmp_path / "bundle"), size_bytes=1),
        )
    )
    record = launch.submit(jobs.load(run_id), LocalBackend(LocalCloud()))
    assert record.handle is not None
    wait_until(lambda: (record.dir / "events.jsonl").exists())  # it has counted its start
    LocalBackend(LocalCloud()).cancel(record.handle, now=True)
    wait_until(lambda: launch.status(record, LocalBackend(LocalCloud())).phase == "ended")
    yield record


def wait_until(claim: Callable[[], bool], limit_s: float = 60) -> None:
    deadline = time.monotonic() + limit_s
    while not claim():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def num_waiting(lock: Path) -> int:
    """How many wait for the lock on that file."""
    inode = f":{lock.stat().st_ino} "
    return sum("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines())


def test_resume_from_two_shells_at_once_starts_one_attempt(record: RunRecord) -> None:
    command = [sys.executable, "-c", "from ftl.cli import main; main()", "resume", record.id, "--detach", "--json"]
    with jobs.changing(record.id):  # both have read the record before either may change it
        shells = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
            for _ in range(2)
        ]
        wait_until(lambda: num_waiting(record.dir / ".record.lock") == 2)
    said = sorted((shell.wait(60), *shell.communicate()) for shell in shells)
    (first, out, _), (second, _, sentence) = said
    assert first == 0 and json.loads(out)["run"] == record.id
    assert second == 4
    told = f"ftl: run {record.id}: another ftl has started attempt 2 meanwhile; `ftl attach {record.id}` follows it"
    assert " ".join(sentence.split()) == told
    outcome = launch.follow(jobs.load(record.id), LocalBackend(LocalCloud()), Quiet())
    assert outcome.result is not None
    assert [attempt.number for attempt in outcome.record.attempts] == [1, 2]


def test_follower_that_another_shell_is_ahead_of_follows_the_attempt_of_that_shell(record: RunRecord) -> None:
    other = LocalBackend(LocalCloud())
    backend = Interrupted(lambda: launch.submit(jobs.load(record.id), other))
    outcome = launch.follow(record, backend, Quiet())
    assert [attempt.number for attempt in outcome.record.attempts] == [1, 2]
    assert outcome.result is not None


def test_machine_without_what_was_sent_starts_no_attempt_and_says_so(record: RunRecord) -> None:
    """One that found the run in a cloud, where another had launched it."""
    bundle = record.bundle.model_copy(update={"path": "/nowhere"})
    jobs.save(record.model_copy(update={"bundle": bundle}))
    outcome = launch.follow(jobs.load(record.id), LocalBackend(LocalCloud()), Quiet())
    assert [attempt.number for attempt in outcome.record.attempts] == [1]
    with pytest.raises(RunError, match="launched on another computer"):
        commands.resume(record.id, cloud=None, detach=True, as_json=True)


def test_stop_while_a_follower_starts_the_run_again_is_obeyed(record: RunRecord) -> None:
    outcome = launch.follow(record, Interrupted(lambda: commands.stop(record.id, now=False, cloud=None)), Quiet())
    assert [attempt.number for attempt in outcome.record.attempts] == [1]
    assert outcome.result is None


def test_stop_waits_for_a_resume_that_is_under_way_and_stops_what_it_started(record: RunRecord) -> None:
    jobs.update(record.id, spec=record.spec.model_copy(update={"env": {"STANDIN": "hang", "COLOUR": "blue"}}))
    with jobs.changing(record.id) as current:  # as `submit` holds it
        code = f"from ftl.commands import jobs; raise SystemExit(jobs.stop({record.id!r}, now=False, cloud=None))"
        stopping = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
        wait_until(lambda: num_waiting(record.dir / ".record.lock") == 1)
        spec = current.spec.model_copy(update={"attempt": 2})
        handle = LocalBackend(LocalCloud()).submit(spec, current.bundle, current.dir)
        jobs.save(jobs.add_attempt(current, jobs.Attempt(number=2, submitted_at=time.time(), handle=handle)))
    assert "has stopped" in stopping.communicate(timeout=60)[1]
    assert launch.status(jobs.load(record.id), LocalBackend(LocalCloud())).cause in ("signal", "lost")
