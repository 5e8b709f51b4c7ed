"""The entry point of one trainer process: signals first, then everything heavy.

Exit status: as ftl.errors.ExitCode; the reason goes to the supervisor as a verdict.
"""

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn

from ftl_runtime.stop import Reason, StopFlag, StopOrder

if TYPE_CHECKING:  # at run time, imports come after the signal handlers
    from ftl.contract import JobSpec
    from ftl_runtime.context import Emit


def main() -> NoReturn:
    die_with_supervisor()
    stop = StopFlag()
    stop.install()
    _do(stop, sys.argv[1])


def _do(stop: StopFlag, job_file: str) -> NoReturn:
    import traceback
    from pathlib import Path

    from ftl.contract import JobSpec
    from ftl.errors import ExitCode, FtlError
    from ftl.redact import hide
    from ftl_runtime.verdict import Verdict, send, verdict_of

    redact_output()
    try:
        job = JobSpec.read_json(Path(job_file).read_bytes())
        hide(job.secrets)
        assert job.paths is not None, "the supervisor refuses a job without paths"
        emit = open_events(job)
        stop.leave_with(lambda reason: leave(job, emit, reason))
        from ftl_runtime.lean import leave_out_unused

        leave_out_unused(job)
        from ftl_runtime.run import do_job

        do_job(job, emit, stop)
        verdict = Verdict(ExitCode.DONE, "done")
        send(verdict)
    except BaseException as error:  # the last frame of the process: every end must reach the supervisor
        verdict = verdict_of(error)
        if verdict.cause == "signal" and stop.reason is not None:
            verdict = Verdict(verdict.exit_code, stop.reason, verdict.message)
        send(verdict)  # before the log, which may be on a full disk
        with contextlib.suppress(OSError):
            if isinstance(error, FtlError):
                sys.stderr.write(f"{error}\n")
            else:
                traceback.print_exception(error)
    _exit(verdict.exit_code)


def redact_output() -> None:
    """Have what Python code of this process prints and logs, tracebacks too, hold no secrets."""
    from ftl.redact import RedactedStream

    sys.stdout = RedactedStream(sys.stdout)
    sys.stderr = RedactedStream(sys.stderr)


def open_events(job: "JobSpec") -> "Emit":
    """The sink of this rank's events: rank 0 writes them, the others keep quiet."""
    from pathlib import Path

    from ftl.contract import EVENTS_FILE
    from ftl_runtime.events import EventLog, no_events

    assert job.paths is not None
    if os.environ.get("RANK", "0") != "0":
        return no_events
    return EventLog(Path(job.paths.run) / EVENTS_FILE, job.attempt).emit


def leave(job: "JobSpec", emit: "Emit", reason: Reason) -> NoReturn:
    """End at once, from inside a signal handler, because training has not started."""
    from pathlib import Path

    from ftl.contract import CHECKPOINTS_DIR
    from ftl.errors import ExitCode
    from ftl_runtime.checkpoint.volume import newest_step
    from ftl_runtime.verdict import Verdict, send

    assert job.paths is not None
    run_dir = Path(job.paths.run)
    newest, order = newest_step(run_dir / CHECKPOINTS_DIR), StopOrder.read(run_dir)
    why = {"why": order.why} if order and order.why else {}
    emit("stopping", {"reason": reason, "step": newest or 0, "saves": False, **why})
    emit("stopped", {"step": newest or 0, "checkpoint": newest})
    send(Verdict(ExitCode.PREEMPTED, reason, "stopped before training started"))
    _exit(ExitCode.PREEMPTED)


def _exit(code: int) -> NoReturn:
    # Tearing down the interpreter runs the destructors of CUDA and of thread pools: seconds, and now and then a crash
    # that would replace the verdict. Everything of worth is flushed and synced by now.
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def die_with_supervisor() -> None:
    """Have the kernel kill this process when its supervisor dies, however it dies."""
    expected = os.environ.get("FTL_SUPERVISOR_PID")
    if expected is None:
        return
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL, 0, 0, 0)
    else:
        _watch_supervisor(int(expected))
    if os.getppid() != int(expected):  # it died before the kernel was told
        os._exit(128 + signal.SIGKILL)


def _watch_supervisor(expected: int) -> None:
    """The same by asking every second, where the kernel has no such service."""
    import threading
    import time

    def watch() -> None:
        while os.getppid() == expected:
            time.sleep(1)
        os._exit(128 + signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main()
