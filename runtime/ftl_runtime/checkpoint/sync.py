"""python -m ftl_runtime.checkpoint.sync JOB.json: sends a run to its stores while it trains.

A process of its own beside the trainers: training never waits for an upload, and an upload does not end with the
trainer. The supervisor holds its standard input and writes one line there when no more checkpoints will come:

    finish output       send what is left, then the finished model
    finish checkpoints  send what is left

The end of the input without a line means that the supervisor is gone: what is left is sent then too. The answer is one
JSON line on standard output: an Ending.
"""

import contextlib
import json
import os
import shutil
import signal
import sys
import threading
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from ftl import bundletar
from ftl.contract import EVENTS_FILE, LOG_FILE, HubRef, JobSpec, StoreRef
from ftl.errors import ConfigError
from ftl.redact import RedactedStream, hide, redacted_data
from ftl_runtime.checkpoint import publish
from ftl_runtime.checkpoint.bandwidth import Rate, bound_uploads
from ftl_runtime.checkpoint.courier import Courier, Emit, Finish
from ftl_runtime.checkpoint.patience import PATIENCE_S
from ftl_runtime.checkpoint.remote import BUNDLE_STAGE, RemoteStore, Told, open_store
from ftl_runtime.events import EventLog

_POLL_S = 0.05
_NICENESS = 5
"""Hashing a checkpoint keeps a core busy: that of a trainer comes first."""


@dataclass(frozen=True)
class Ending:
    """How it ended, for the supervisor."""

    undelivered: str | None = None
    """The sentence of a store that has not got all it should."""
    superseded: str | None = None
    """A later attempt of the run has taken over: the sentence about it."""


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # sent to all by whoever stops a container; the supervisor decides
    os.nice(_NICENESS)
    job = JobSpec.read_json(Path(sys.argv[1]).read_bytes())
    hide(job.secrets)
    sys.stderr = RedactedStream(sys.stderr)  # the log
    assert job.paths is not None, "the supervisor refuses a job without paths"
    ending = _sync(job, Path(job.paths.run))
    try:
        sys.stdout.write(json.dumps(redacted_data(asdict(ending))) + "\n")
        sys.stdout.flush()
    except OSError:
        pass  # the supervisor is gone
    # Not by the ordinary way: a courier that hangs in a request would be waited for.
    os._exit(0)


def _sync(job: JobSpec, run_dir: Path) -> Ending:
    emit = EventLog(run_dir / EVENTS_FILE, job.attempt).emit
    owner = f"{job.attempt}-{uuid.uuid4().hex[:12]}"
    rate = _rate(job, emit)
    bundle = _bundle(job)
    couriers = [
        Courier(open_store(ref, job.run_id, rate), ref, run_dir, number, owner, emit, bundle)
        for number, ref in enumerate(job.stores)
    ]
    for courier in couriers:
        courier.start()
    orders = _Orders(run_dir / LOG_FILE)
    has_ended = False
    while True:
        superseded = next((courier.superseded for courier in couriers if courier.superseded), None)
        if superseded:
            return Ending(superseded=superseded)
        if orders.line is not None and not has_ended:
            has_ended = True
            for courier in couriers:
                courier.end(_finish(job, courier.ref) if orders.line == "finish output" else None)
            ended_at = time.monotonic()
        if has_ended and all(_is_over(courier, ended_at) for courier in couriers):
            failed = next((courier for courier in couriers if not courier.is_done), None)
            return Ending(undelivered=failed.failure if failed else None)
        time.sleep(_POLL_S)


def _rate(job: JobSpec, emit: Emit) -> Rate | None:
    """The bound on what is sent, which holds from here on."""
    if job.max_upload_mb_per_s is None:
        return None
    try:
        return bound_uploads(job.max_upload_mb_per_s)
    except ConfigError as error:
        emit("warning", {"message": f"{error}: uploads are not bounded"})
        return None


def _bundle(job: JobSpec) -> Path | None:
    """What the run was launched with, where it is small enough to lie beside its checkpoints. What a killed attempt
    left of it in the run directory is removed."""
    assert job.paths is not None
    for leftover in Path(job.paths.run).glob(f"{BUNDLE_STAGE}*"):
        shutil.rmtree(leftover, ignore_errors=True)
    directory = Path(job.paths.bundle)
    try:
        return directory if bundletar.size(directory) <= bundletar.KEPT_BYTES else None
    except (OSError, ValueError, KeyError):
        return None  # a job by hand, without a launcher


def _finish(job: JobSpec, ref: StoreRef) -> Finish:
    """What sends the finished model."""

    def finish(store: RemoteStore, told: Told) -> str | None:
        stage = publish.prepare(job, ref.repo if isinstance(ref, HubRef) else None)
        try:
            return store.deliver(stage, told)
        finally:
            publish.clear(stage)

    return finish


def _is_over(courier: Courier, ended_at: float) -> bool:
    """Whether nothing more is to be expected of it: it is done, has died, or fails for too long."""
    if courier.is_done or not courier.is_alive():
        return True
    since = courier.failing_since
    return since is not None and time.monotonic() - max(since, ended_at) >= PATIENCE_S


class _Orders:
    """The line that the supervisor writes, read by a thread of its own."""

    def __init__(self, log: Path) -> None:
        self.line: str | None = None
        self._log = log
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        line = sys.stdin.readline().strip()
        if not line:
            self._write_log_itself()
        self.line = line or "finish checkpoints"

    def _write_log_itself(self) -> None:
        """Standard error led to the log through the supervisor, which is gone: writing there would fail."""
        with contextlib.suppress(OSError):
            fd = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.dup2(fd, sys.stderr.fileno())
            os.close(fd)


if __name__ == "__main__":
    sys.exit(main())
