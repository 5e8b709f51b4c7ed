"""From a record to a result: submit, follow, submit again after a lost machine, deliver."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from ftl import jobs
from ftl.backends import Backend, KeepsBundles, load
from ftl.contract import EVENTS_FILE, LOG_FILE, RESULT_FILE, Event, JobHandle, JobState, RunResult, TaskResult
from ftl.errors import BackendError, ExitCode, Problem, RunError
from ftl.jobs import Attempt, RunRecord
from ftl.redact import hide, redacted

_RETRIED = ("lost", "killed")
"""Causes after which the same job may well succeed. Running out of memory or crashing would only happen again."""


class Follower(Protocol):
    """Whoever watches a run."""

    def on_event(self, event: Event) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """How a run stands when nothing more will happen by itself."""

    record: RunRecord
    state: JobState
    result: RunResult | TaskResult | None


def backend_of(record: RunRecord) -> Backend:
    """The backend that runs this record, made from the cloud section it was launched with."""
    hide(record.spec.secrets)
    return _backend(record.provider, record.cloud)


def forget(record: RunRecord) -> None:
    """Remove what the providers of all its attempts keep of a run: containers, apps, machines, files."""
    places: dict[str, tuple[Backend, JobHandle]] = {}
    for attempt, provider in zip(record.attempts, record.providers, strict=True):
        if attempt.handle is None:
            continue
        own = record.cloud if provider == record.provider else {"provider": provider}
        backend = _backend(provider, own if attempt.cloud is None else attempt.cloud)
        backend.remove(attempt.handle)
        places[backend.place or f"attempt {attempt.number}"] = (backend, attempt.handle)
    for backend, handle in places.values():
        backend.erase(handle)


def _backend(provider: str, cloud: dict[str, Any]) -> Backend:  # Any: as RunRecord.cloud
    kind = load(provider)
    return kind(kind.Cloud.read(cloud))


class ChangedMeanwhileError(RunError):
    """Another shell has started an attempt of the run, or asked it to stop, since its record was read."""


def submit(
    record: RunRecord, backend: Backend, *, limit_from: float | None = None, above: int = 0, **moved: Any
) -> RunRecord:  # Any: values of RunRecord fields
    """Start the next attempt; the record with its handle, saved. `moved` are fields that change with it.

    `limit_from` is when its time limit began to count, where not with it. Its number is higher than `above`, too,
    unless an attempt that was never accepted is taken up again.
    The attempt is noted before the provider is asked and again with the handle, so that a launcher killed
    in between leaves a record from which the same submission can be repeated. Raises ChangedMeanwhileError.
    """
    with jobs.changing(record.id) as read:
        _check_unchanged(record, read)
        current = read.model_copy(update=moved)
        number = _next_number(current, above)
        attempt = Attempt(number=number, submitted_at=time.time(), provider=current.provider, cloud=current.cloud)
        started = jobs.add_attempt(current, attempt)
        spec = current.spec.model_copy(update={"attempt": number, "limit_from": limit_from})
        started = started.model_copy(update={"spec": spec, "stop_requested_at": None})
        jobs.save(started)
        handle = backend.submit(spec, started.bundle, started.dir)
        done = jobs.add_attempt(started, attempt.model_copy(update={"submitted_at": time.time(), "handle": handle}))
        jobs.save(done)
        return done


def has_bundle(record: RunRecord, backend: Backend) -> bool:
    """Whether an attempt can be started from here: on another machine than the run's own only the provider may still
    have what was sent."""
    return isinstance(backend, KeepsBundles) or Path(record.bundle.path).is_dir()


def follow(
    record: RunRecord, backend: Backend, follower: Follower, *, sleep: Callable[[float], None] = time.sleep
) -> Outcome:
    """Watch the run from its first event to its end; submit it again when its machine was lost.

    Blocks until the run has ended. KeyboardInterrupt passes: the job goes on.
    """
    events = Tail(EVENTS_FILE)
    saved: dict[int, int] = {}
    waits_for: str | None = None
    while True:
        for event in events.events(record, backend):
            if event.event == "checkpoint" and event.data.get("state") == "verified":
                saved[event.attempt] = saved.get(event.attempt, 0) + 1
            follower.on_event(event)
        state = status(record, backend)
        waits_for = _tell_waiting(record, state, waits_for, follower)
        if state.phase != "ended":
            sleep(backend.poll_s)
            continue
        for event in events.events(record, backend):
            follower.on_event(event)
        newer = jobs.load(record.id)
        if len(newer.attempts) > len(record.attempts):  # another shell has submitted it again
            record = newer
            continue
        if not _may_retry(newer, state, saved, backend):
            return Outcome(newer, state, result(newer, backend))
        number = _next_number(newer)
        notice = {"message": f"{state.message or state.cause}; starting attempt {number}"}
        follower.on_event(Event(t=time.time(), attempt=number, event="warning", data=notice))
        try:
            record = _resubmit(newer, backend)
        except ChangedMeanwhileError:
            record = jobs.load(record.id)


def _tell_waiting(record: RunRecord, state: JobState, told: str | None, follower: Follower) -> str | None:
    """Say what a queued run waits for where that differs from what was `told`; what has been told by then."""
    if state.phase != "queued" or state.message in (None, told):
        return told
    number = record.attempts[-1].number
    follower.on_event(Event(t=time.time(), attempt=number, event="waiting", data={"message": state.message}))
    return state.message


def status(record: RunRecord, backend: Backend) -> JobState:
    """How the newest attempt stands. An attempt that never reached the provider is lost."""
    if record.handle is None:
        return JobState(phase="ended", exit_code=ExitCode.PREEMPTED, cause="lost", message="it was never accepted")
    return backend.status(record.handle)


def result(record: RunRecord, backend: Backend) -> RunResult | TaskResult | None:
    """The result of a finished run, None while there is none."""
    if record.handle is None:
        return None
    content = backend.read(record.handle, RESULT_FILE, 0)
    kind = RunResult if record.spec.task == "train" else TaskResult
    try:
        return kind.read_json(content) if content else None
    except ValidationError as error:
        raise BackendError(
            Problem(f"{RESULT_FILE} of {record.id}", str(error.errors()[0]["msg"]), "cannot be read")
        ) from error


class Tail:
    """Reads a growing file of a run from its start, whole lines only, each once."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._offset = 0
        self._rest = b""

    def lines(self, record: RunRecord, backend: Backend) -> Iterator[str]:
        """The lines that have been completed since the last call."""
        if record.handle is None:
            return
        content = backend.read(record.handle, self._name, self._offset)
        self._offset += len(content)
        *whole, self._rest = (self._rest + content).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")

    def rest(self) -> str:
        """What stands after the last newline."""
        return self._rest.decode(errors="replace")

    def events(self, record: RunRecord, backend: Backend) -> Iterator[Event]:
        """As `lines`, parsed. A line torn by a kill is left out."""
        for line in self.lines(record, backend):
            try:
                yield Event.read_json(line)
            except ValidationError:
                continue


def log_lines(
    record: RunRecord, backend: Backend, *, follow: bool, sleep: Callable[[float], None] = time.sleep
) -> Iterator[str]:
    """The run's log from its start, without secrets; with `follow` until the run ends."""
    tail = Tail(LOG_FILE)
    while True:
        ended = not follow or status(record, backend).phase == "ended"
        yield from map(redacted, tail.lines(record, backend))
        if ended:
            if tail.rest():
                yield redacted(tail.rest())
            newer = jobs.load(record.id)
            if not follow or len(newer.attempts) == len(record.attempts):
                return
            record = newer
        sleep(backend.poll_s)


def _check_unchanged(seen: RunRecord, current: RunRecord) -> None:
    where = f"run {current.id}"
    if current.attempts != seen.attempts:
        told = f"another ftl has started attempt {current.attempts[-1].number} meanwhile"
        raise ChangedMeanwhileError(Problem(where, told, None, f"`ftl attach {current.id}` follows it"))
    if current.stop_requested_at != seen.stop_requested_at:
        told = "another ftl has asked it to stop meanwhile"
        raise ChangedMeanwhileError(Problem(where, told, None, f"`ftl resume {current.id}` goes on with it"))


def _next_number(record: RunRecord, above: int = 0) -> int:
    """1, 2, ... An attempt noted without a handle is taken up again under its own number."""
    if not record.attempts:
        return 1 + above
    last = record.attempts[-1]
    return last.number if last.handle is None else max(last.number, above) + 1


def _resubmit(record: RunRecord, backend: Backend) -> RunRecord:
    if record.handle is not None:
        backend.remove(record.handle)
    return submit(record, backend, limit_from=_limit_from(record))


def _limit_from(record: RunRecord) -> float:
    """Since when the time limit of the attempts counts that follow one another by themselves."""
    return record.spec.limit_from or record.attempts[-1].submitted_at


def _is_time_over(record: RunRecord) -> bool:
    timeout_s = record.spec.timeout_s
    return timeout_s is not None and time.time() - _limit_from(record) >= timeout_s


def _may_retry(record: RunRecord, state: JobState, saved: dict[int, int], backend: Backend) -> bool:
    """Whether to start it again: the machine was lost, nobody asked to stop, and attempts still get further."""
    if backend.recovers or state.cause not in _RETRIED or record.stop_requested_at is not None:
        return False
    if not has_bundle(record, backend) or _is_time_over(record):
        return False
    fruitless = 0
    for attempt in reversed(record.attempts):
        if saved.get(attempt.number):
            break
        fruitless += 1
    return fruitless < int(record.cloud.get("max_attempts", 3))
