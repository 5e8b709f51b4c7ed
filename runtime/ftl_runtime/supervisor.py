"""One attempt, from taking the run's lock to writing exit.json."""

import contextlib
import fcntl
import os
import select
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from ftl.config.train import TrainConfig
from ftl.contract import (
    BUNDLE_CONFIG,
    CHECKPOINTS_DIR,
    EVENTS_FILE,
    EXIT_FILE,
    LOCK_FILE,
    LOG_FILE,
    RESULT_FILE,
    ExitRecord,
    JobSpec,
)
from ftl.errors import BackendError, ExitCode, FtlError, StorageError
from ftl.redact import hide, redacted
from ftl_runtime.agreement import agreed
from ftl_runtime.checkpoint.manifest import replace_synced
from ftl_runtime.checkpoint.volume import newest_step
from ftl_runtime.events import EventLog
from ftl_runtime.link import Link
from ftl_runtime.measured import Measured, where_sent
from ftl_runtime.memory import fitted, keep_fit, shrunk
from ftl_runtime.notices import Notice, NoticeWatch, service_of
from ftl_runtime.relay import Relay
from ftl_runtime.rendezvous import Rendezvous, file_of, interface_of, rendezvous
from ftl_runtime.runlog import RunLog
from ftl_runtime.spawn import Trainers, default_env, num_ranks, ray_driver
from ftl_runtime.starts import counted
from ftl_runtime.stop import StopOrder
from ftl_runtime.uploads import Uploads
from ftl_runtime.verdict import VERDICT_FD, Verdict, receive, verdict_of
from ftl_runtime.watch import Requests, SendLimit, Watch, limit_at

LOCK_WAIT_S = 30.0
_POLL_S = 0.05
_TELL_DONE_S = 60.0
"""How long the first machine waits for the others only to tell them that all is done."""


def supervise(job_file: Path, num_requests: Callable[[], int]) -> int:
    """Run the job to its end; gives the exit code. `num_requests` counts the requests to stop so far."""
    started = time.monotonic()
    try:
        job = JobSpec.read_json(job_file.read_bytes())
        if job.paths is None:
            raise BackendError(f"{job_file}: it has no paths; the backend fills them in")
        run_dir = Path(job.paths.run)
        place = rendezvous(os.environ) if job.task == "train" else Rendezvous()
        lock_fd = _take_lock(run_dir / file_of(LOCK_FILE, place), num_requests)
        job, job_file = counted(job, job_file, run_dir, place)
    except OSError as error:
        sys.stderr.write(f"{error.filename}: {error.strerror}\n")
        return ExitCode.ENVIRONMENT
    except (ValidationError, FtlError) as error:
        sys.stderr.write(f"{error}\n")
        return ExitCode.ENVIRONMENT
    exit_file = run_dir / file_of(EXIT_FILE, place)
    try:
        exit_file.unlink(missing_ok=True)
        StopOrder.clear(run_dir)
        requests = Requests(num_requests, _notices(job, run_dir))
        with contextlib.closing(RunLog(run_dir / file_of(LOG_FILE, place))) as log:
            verdict = _see_through(_Attempt(job, job_file, run_dir, place, lock_fd, log, requests, started))
    except (OSError, FtlError) as error:
        verdict = verdict_of(error if isinstance(error, FtlError) else StorageError(f"{run_dir}: {error}"))
        sys.stderr.write(f"{redacted(str(verdict.message))}\n")
    message = None if verdict.message is None else redacted(verdict.message)
    if verdict.exit_code not in (ExitCode.DONE, ExitCode.PREEMPTED) and place.node == 0:
        with contextlib.suppress(OSError, StorageError):  # a full disk is no reason to lose the exit code
            EventLog(run_dir / EVENTS_FILE, job.attempt).emit("error", {"cause": verdict.cause, "message": message})
    record = ExitRecord(
        attempt=job.attempt,
        submission=job.submission,
        exit_code=verdict.exit_code,
        cause=verdict.cause,
        message=message,
    )
    try:
        replace_synced(exit_file, record.model_dump_json().encode())
    except OSError as error:
        sys.stderr.write(f"{exit_file}: cannot be written: {error.strerror}\n")
    return verdict.exit_code


@dataclass(frozen=True)
class _Attempt:
    """What there is of it before trainers start."""

    job: JobSpec
    job_file: Path
    run_dir: Path
    place: Rendezvous
    lock_fd: int
    log: RunLog
    requests: Requests
    started: float
    uploads: Uploads | None = None
    link: Link | None = None
    interface: str | None = None
    """The network interface by which the other machines are reached, where there is one to name."""


def _see_through(attempt: _Attempt) -> Verdict:
    """Train to the end, unless that was done before, while what is made goes to the stores; then see it arrive."""
    job, place, requests, run_dir = attempt.job, attempt.place, attempt.requests, attempt.run_dir
    has_result = (run_dir / RESULT_FILE).exists()
    if job.stores and place.node == 0 and job.task == "train" and not (requests.any() and not has_result):
        attempt = replace(attempt, uploads=Uploads(attempt.job_file, _environment(job), attempt.log))
    if place.num_nodes > 1 and not _uses_ray(job):
        verdict, send_by = _run_with_others(attempt, has_result=has_result)
    elif has_result:
        verdict, send_by = Verdict(ExitCode.DONE, "done"), None
    else:
        verdict, send_by = _run(attempt)
        while verdict.may_shrink and place.num_nodes == 1 and _shrink(job, run_dir, verdict):
            verdict, send_by = _run(attempt)
    if attempt.uploads is None:
        return verdict
    limit = SendLimit(requests, send_by=send_by, grace_s=job.grace_s)
    ending = attempt.uploads.finish(has_output=verdict.exit_code == ExitCode.DONE, must_end=limit)
    if ending.superseded:
        return Verdict(ExitCode.ENVIRONMENT, "superseded", ending.superseded)
    if ending.undelivered and verdict.exit_code == ExitCode.DONE:
        return Verdict(ExitCode.UNDELIVERED, "undelivered", f"trained, but not delivered: {ending.undelivered}")
    if verdict.exit_code == ExitCode.PREEMPTED:
        sent = where_sent(Measured(run_dir / EVENTS_FILE).read().sent)
        unsent = f"not all was sent: {ending.undelivered}; " if ending.undelivered else ""
        return replace(verdict, message=f"{verdict.message}; {unsent}{sent}")
    return verdict


def _run_with_others(attempt: _Attempt, *, has_result: bool) -> tuple[Verdict, float | None]:
    """As `_run`, in touch with the other machines: all do what the first one finds to be done."""
    link = Link(attempt.place, attempt.job.run_id, num_ranks(attempt.job))
    try:
        requests = replace(attempt.requests, elsewhere=lambda: link.asked)
        if has_result:
            with contextlib.suppress(BackendError):  # the others may have ended long ago
                link.meet(is_done=True, must_end=requests.any, patience_s=_TELL_DONE_S)
        meeting = None if has_result else link.meet(is_done=False, must_end=requests.any)
        if has_result or (meeting is not None and meeting.is_done):
            link.tell_ended(Verdict(ExitCode.DONE, "done"))
            return Verdict(ExitCode.DONE, "done"), None
        if meeting is None and not requests.any():
            alone = Verdict(ExitCode.PREEMPTED, "lost", "another machine ended before training started")
            return agreed(alone, link, attempt.log, is_bereft=True, newest=None), None
        attempt = replace(attempt, requests=requests, link=link)
        if meeting is not None:
            place = replace(attempt.place, port=meeting.port)
            attempt = replace(attempt, place=place, interface=interface_of(meeting.address_here))
        return _run(attempt)
    except (OSError, FtlError) as error:
        link.tell_ended(verdict_of(error))
        raise
    finally:
        link.close()


def _notices(job: JobSpec, run_dir: Path) -> Callable[[], Notice | None]:
    """What asks for the provider's notices, from here on."""

    def warn(message: str) -> None:
        with contextlib.suppress(OSError, StorageError):
            EventLog(run_dir / EVENTS_FILE, job.attempt).emit("warning", {"message": message})

    watch = NoticeWatch(service_of(dict(os.environ) | job.env), warn)
    return lambda: watch.notice


def _tell_stopped(job: JobSpec, run_dir: Path) -> None:
    """Emit where the attempt stopped unless rank 0 has: it may have been killed while it waited for another one."""
    if job.attempt in Measured(run_dir / EVENTS_FILE).read().stopped:
        return
    newest = newest_step(run_dir / CHECKPOINTS_DIR)
    with contextlib.suppress(OSError, StorageError):  # a full disk is no reason to lose the verdict
        EventLog(run_dir / EVENTS_FILE, job.attempt).emit("stopped", {"step": newest or 0, "checkpoint": newest})


def _shrink(job: JobSpec, run_dir: Path, verdict: Verdict) -> bool:
    """Have the run go on in smaller pieces, from its newest checkpoint; False where that is not wanted or possible."""
    cfg = _config(job)
    smaller = shrunk(fitted(cfg, run_dir), has_gpu=job.resources.gpus != 0) if cfg.watch.retries_smaller else None
    if smaller is None:
        return False
    told = keep_fit(smaller, run_dir)
    what = (verdict.message or "out of memory").partition(";")[0]
    message = f"{what}: trained on with {told}: the same rows a step, and from here on the same numbers up to rounding"
    EventLog(run_dir / EVENTS_FILE, job.attempt).emit("warning", {"message": message})
    return True


def _config(job: JobSpec) -> TrainConfig:
    assert job.paths is not None
    return TrainConfig.read_json((Path(job.paths.bundle) / BUNDLE_CONFIG).read_bytes())


def _uses_ray(job: JobSpec) -> bool:
    try:
        return job.task == "train" and _config(job).ray.is_used
    except (OSError, ValidationError):
        return False  # a rank reads it, too, and says what is wrong with it


def _over_before(attempt: _Attempt) -> Verdict | None:
    """Why an attempt is over before its trainers are started; None where it is not."""
    if attempt.requests.any():
        return Verdict(ExitCode.PREEMPTED, "signal", "stopped before training started")
    limit = limit_at(attempt.job, attempt.started)
    if limit is None or limit > time.monotonic():
        return None
    used = f"earlier attempts, and the wait for a machine, have used up the {attempt.job.timeout_s} s that it may take"
    return Verdict(ExitCode.PREEMPTED, "deadline", used)


def _run(attempt: _Attempt) -> tuple[Verdict, float | None]:
    """Start the trainers and stay with them until they are all gone; with the moment until which what is left
    may be sent."""
    job, run_dir, place, link = attempt.job, attempt.run_dir, attempt.place, attempt.link
    over = _over_before(attempt)
    if over is not None:
        if place.node == 0:
            _tell_stopped(job, run_dir)
        if link is not None:
            link.tell_ended(over)
        return over, None
    read_fd, write_fd = os.pipe()
    os.set_blocking(read_fd, False)
    relay = Relay(run_dir / file_of(LOG_FILE, place), sys.stdout.fileno())
    env = _environment(job) | {VERDICT_FD: str(write_fd), "FTL_STARTED": repr(time.time())}
    if attempt.interface is not None:
        env = {"GLOO_SOCKET_IFNAME": attempt.interface} | env
    job_file, fds = attempt.job_file.absolute(), (attempt.lock_fd, write_fd)
    if _uses_ray(job):
        trainers = ray_driver(job_file, place, env, attempt.log, fds)
    else:
        trainers = Trainers(job_file, num_ranks(job), place, env, attempt.log, fds)
    os.close(write_fd)
    watch = Watch(job, trainers, run_dir, attempt.started, link)
    received = b""
    while not watch.all_gone():
        watch.turn(
            attempt.requests, is_superseded=attempt.uploads is not None and attempt.uploads.superseded is not None
        )
        relay.turn()
        received += _read_available(read_fd)
        select.select([read_fd] if not received else [], [], [], _POLL_S)
    trainers.end_leftovers()
    attempt.log.drain()
    received += _read_available(read_fd)
    told, newest = receive(received), newest_step(run_dir / CHECKPOINTS_DIR)
    verdict = watch.verdict(told, newest)
    if told is None and verdict.message is not None:
        attempt.log.write(verdict.message)
    if link is not None:
        verdict = agreed(verdict, link, attempt.log, is_bereft=watch.is_bereft, newest=newest)
    if verdict.exit_code == ExitCode.PREEMPTED and place.node == 0:
        _tell_stopped(job, run_dir)
    relay.finish()
    return verdict, watch.send_by(verdict.exit_code)


def _take_lock(path: Path, num_requests: Callable[[], int]) -> int:
    """The descriptor of the run's lock, held by this process and by every trainer that inherits it.

    Waits for a previous attempt to be gone. Raises BackendError when it does not go, or on a request to stop.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    give_up = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return fd
        except BlockingIOError as error:
            if time.monotonic() >= give_up or num_requests():
                raise BackendError(f"{path.parent}: another attempt of this run is still at work there") from error
        time.sleep(_POLL_S)


def _environment(job: JobSpec) -> dict[str, str]:
    """The trainers' environment: ours, the job's plain variables, and the secrets from their files.

    What is secret in it is not told by this process from here on.
    """
    env = default_env(has_gpu=job.resources.gpus != 0) | dict(os.environ) | job.env
    if job.paths is None or job.paths.secrets is None:
        hide(job.secrets, env)
        return env
    missing = []
    for name in job.secrets:
        file = Path(job.paths.secrets) / name
        if file.is_file():
            env[name] = file.read_text().rstrip("\n")
        else:
            missing.append(f"secret {name}: there is no file {file}; the backend should have put it there")
    if missing:
        raise BackendError(*missing)
    hide(job.secrets, env)
    return env


def _read_available(fd: int) -> bytes:
    """What lies in a non-blocking pipe."""
    data = b""
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(fd, 65536):
            data += chunk
    return data
