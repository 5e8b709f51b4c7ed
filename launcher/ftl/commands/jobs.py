"""ftl ps, logs, attach, stop, resume, push, pull, rm: everything one does with a run after it was launched."""

import sys
import time
from concurrent.futures import Future
from pathlib import Path
from threading import Semaphore, Thread

from ftl import carry, deliver, garbage, jobs, launch, precheck
from ftl.backends import HERE, Backend
from ftl.cloudfile import load_cloud
from ftl.commands import elsewhere, show
from ftl.contract import EVENTS_FILE
from ftl.errors import BackendError, ExitCode, FtlError, Problem, RunError
from ftl.jobs import RunRecord
from ftl.launch import backend_of
from ftl.plan import moved
from ftl.refetch import bring_bundle

_AT_ONCE = 8
"""So many runs are asked for at the same time: each may be an answer of a server away."""
_STOP_MARGIN_S = 30
"""How long past its grace a run is waited for before `ftl stop` gives up waiting."""


def ps(*, cloud: Path | None, as_json: bool) -> int:
    """List the runs of this machine, or those of a cloud, whoever launched them; newest first."""
    records = elsewhere.found(load_cloud(cloud)) if cloud else jobs.all_records()
    show.run_table(_lines(records), as_json=as_json)
    return ExitCode.DONE


def logs(prefix: str | None, *, cloud: Path | None, follow: bool) -> int:
    """Print a run's log from its start."""
    record = jobs.find(elsewhere.bring(prefix, cloud))
    backend = backend_of(record)
    state = launch.status(record, backend)
    if state.phase == "queued" and state.message:
        show.note(f"run {record.id} is queued: {state.message}; its log begins when it runs")
    is_empty = True
    for line in launch.log_lines(record, backend, follow=follow):
        is_empty = False
        sys.stdout.write(line + "\n")
        if follow:
            sys.stdout.flush()
    if is_empty and state.phase == "ended" and state.message:
        show.note(f"run {record.id} has ended without a log: {state.message}")
    return ExitCode.DONE


def attach(prefix: str | None, *, cloud: Path | None, as_json: bool) -> int:
    """Follow a run as `ftl train` does; its exit code."""
    record = jobs.find(elsewhere.bring(prefix, cloud))
    return show.watch(record, backend_of(record), as_json=as_json)


def stop(prefix: str, *, cloud: Path | None, now: bool) -> int:
    """Ask a run to save and stop, and wait until it has."""
    with jobs.changing(
        jobs.find(elsewhere.bring(prefix, cloud)).id
    ) as record:  # nobody starts an attempt before the request is noted
        backend = backend_of(record)
        is_over = launch.status(record, backend).phase == "ended"
        jobs.save(record.model_copy(update={"stop_requested_at": time.time()}))
    if is_over:
        show.note(f"run {record.id} has already ended")
        return ExitCode.DONE
    assert record.handle is not None, "only an accepted attempt can be running"
    backend.cancel(record.handle, now=now)
    deadline = time.monotonic() + record.spec.grace_s + _STOP_MARGIN_S
    events = launch.Tail(EVENTS_FILE)
    while launch.status(record, backend).phase != "ended":
        list(events.lines(record, backend))  # what it still says may be gone with its machine
        if time.monotonic() > deadline:
            waited = f"has not stopped {record.spec.grace_s + _STOP_MARGIN_S} s after it was asked"
            raise BackendError(Problem(f"run {record.id}", None, waited, f"`ftl stop --now {record.id}` kills it"))
        time.sleep(backend.poll_s)
    step = deliver.newest_checkpoint(record, backend)
    kept = (
        f"checkpoint of step {step} is verified; `ftl resume {record.id}` goes on"
        if step
        else "no checkpoint was saved"
    )
    show.note(f"run {record.id} has stopped: {kept}")
    return ExitCode.DONE


def resume(prefix: str, *, cloud: Path | None, detach: bool, as_json: bool) -> int:
    """Start the next attempt of a run that has ended before it was done, where it was or in another cloud."""
    try:
        record = jobs.find(prefix)
    except RunError:
        if cloud is None:
            raise
        record = jobs.find(elsewhere.bring(prefix, cloud))
    old = _ended(record)
    if launch.result(record, old) is not None:
        raise RunError(Problem(f"run {record.id}", "is done", None, f"`ftl pull {record.id}` copies the model"))
    return _again(record, old, load_cloud(cloud) if cloud else old, is_done=False, detach=detach, as_json=as_json)


def push(prefix: str, *, cloud: Path | None, as_json: bool) -> int:
    """Send the finished model of a run to the stores that have not got it."""
    record = jobs.find(prefix)
    old = _ended(record)
    if launch.result(record, old) is None:
        raise RunError(
            Problem(f"run {record.id}", "has no finished model yet", None, f"`ftl resume {record.id}` goes on with it")
        )
    if not record.spec.stores:
        given = "its config names no hub_model_id, and its cloud file no checkpoints"
        raise RunError(Problem(f"run {record.id}", given, None, f"`ftl pull {record.id}` copies the model"))
    return _again(record, old, load_cloud(cloud) if cloud else old, is_done=True, detach=False, as_json=as_json)


def _ended(record: RunRecord) -> Backend:
    """The backend of a run that nothing is at work on. Raises RunError otherwise."""
    backend = backend_of(record)
    state = launch.status(record, backend)
    if state.phase != "ended":
        raise RunError(Problem(f"run {record.id}", f"is {state.phase}", None, f"`ftl attach {record.id}` follows it"))
    return backend


def _again(record: RunRecord, old: Backend, backend: Backend, *, is_done: bool, detach: bool, as_json: bool) -> int:
    """Submit the next attempt, in the same place or in another one, where what was made so far goes along."""
    is_moved = old.place is None or old.place != backend.place
    if not (Path(record.bundle.path).is_dir() if is_moved else launch.has_bundle(record, backend)):
        bring_bundle(record)
    spec = record.spec if backend is old else moved(record.spec, backend.cloud, backend.spec_fields())
    problems = [] if backend is old else precheck.store_problems(spec.stores, backend.cloud)
    problems += backend.preflight(spec)
    if problems:
        raise BackendError(*problems)
    was_accepted = record.handle is not None
    carried, above = (() if was_accepted else record.spec.carried), 0
    if is_moved:
        taken = carry.take(record, old, is_done=is_done)
        for note in taken.notes:
            show.note(note, as_json=as_json)
        carried, above = (() if backend.place == HERE else taken.names), taken.last_attempt
    if record.handle is not None:
        old.remove(record.handle)
    moves = {"provider": backend.cloud.provider, "cloud": backend.cloud.model_dump(mode="json")}
    spec = spec.model_copy(update={"carried": carried})
    record = launch.submit(record, backend, above=above, spec=spec, **(moves if backend is not old else {}))
    if detach:
        show.detached(record, as_json=as_json)
        return ExitCode.DONE
    return show.watch(record, backend, as_json=as_json)


def pull(prefix: str, dest: Path | None, *, cloud: Path | None, checkpoint: bool) -> int:
    """Copy the finished model, or the newest checkpoint, to `dest`."""
    record = jobs.find(elsewhere.bring(prefix, cloud))
    backend = backend_of(record)
    if checkpoint:
        target = deliver.checkpoint(record, backend, (dest or Path(f"{record.output_dir}-checkpoint")).absolute())
    else:
        target = deliver.output(record, backend, (dest or Path(record.output_dir)).absolute())
    show.note(f"run {record.id}: copied to {target}, every file verified")
    return ExitCode.DONE


def rm(prefix: str, *, cloud: Path | None, force: bool) -> int:
    """Remove a run: its record, logs, checkpoints and output here, and what the provider holds of it."""
    run_id = jobs.resolve(elsewhere.bring(prefix, cloud) or prefix)
    try:
        record = jobs.load(run_id)
    except RunError:
        jobs.delete(run_id)
        show.note(f"run {run_id} is removed; its record could not be read")
        return ExitCode.DONE
    backend = backend_of(record)
    if launch.status(record, backend).phase != "ended":
        if not force:
            remedy = f"`ftl stop {record.id}` first, or --force"
            raise RunError(Problem(f"run {record.id}", "is running", None, remedy))
        _kill(record)
    launch.forget(record)
    jobs.delete(record.id)
    garbage.collect_garbage()
    show.note(f"run {record.id} is removed")
    return ExitCode.DONE


def _kill(record: RunRecord) -> None:
    backend = backend_of(record)
    assert record.handle is not None, "only an accepted attempt can be running"
    jobs.update(record.id, stop_requested_at=time.time())
    backend.cancel(record.handle, now=True)
    deadline = time.monotonic() + _STOP_MARGIN_S
    while launch.status(record, backend).phase != "ended" and time.monotonic() < deadline:
        time.sleep(backend.poll_s)


def _lines(records: list[RunRecord]) -> list[show.RunLine]:
    """Those of all runs. No thread keeps Ctrl-C waiting, as those of a pool would."""
    turns = Semaphore(_AT_ONCE)

    def ask(record: RunRecord, answer: "Future[show.RunLine]") -> None:
        with turns:
            try:
                answer.set_result(_line(record))
            except BaseException as error:
                answer.set_exception(error)

    answers: list[Future[show.RunLine]] = [Future() for _ in records]
    for pair in zip(records, answers, strict=True):
        Thread(target=ask, args=pair, daemon=True).start()
    return [answer.result() for answer in answers]


def _line(record: RunRecord) -> show.RunLine:
    """What `ftl ps` says of a run; a backend that cannot be asked leaves its state unknown."""
    step = max_steps = loss = message = None
    try:
        backend = backend_of(record)
        state = launch.status(record, backend)
        if record.handle is not None:
            for event in launch.Tail(EVENTS_FILE).events(record, backend):
                if event.event == "step":
                    step, max_steps, loss = event.data["step"], event.data["max_steps"], event.data["loss"]
        is_stopped = record.stop_requested_at is not None or backend.recovers  # those go on after a preemption
        message = state.message if state.phase == "queued" else None
        text = state.phase if state.phase != "ended" else _verdict(state.cause, is_stopped=is_stopped)
    except FtlError as error:
        text = f"unknown: {error}"
    return show.RunLine(record, text, step, max_steps, loss, message)


def _verdict(cause: str | None, *, is_stopped: bool) -> str:
    if cause == "signal":
        return "stopped" if is_stopped else "preempted"
    return cause or "ended"
