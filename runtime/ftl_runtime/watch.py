"""What the supervisor does about requests to stop: whom it asks, how long it waits, what became of the trainers."""

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ftl.contract import EVENTS_FILE, JobSpec
from ftl.errors import ExitCode
from ftl_runtime.link import Asked, Link
from ftl_runtime.measured import Measured, lead_s
from ftl_runtime.notices import Notice
from ftl_runtime.spawn import Trainers
from ftl_runtime.stop import DEADLINE_SIGNAL, Reason, StopOrder
from ftl_runtime.verdict import Verdict

STRAGGLER_S = 10.0
"""How long the other ranks may live on after one has crashed or has left before training: they wait for it in a
collective and never come back. Ranks that stop in good order end together, when the save is over."""
_MEASURE_EVERY_S = 2.0
_KILLED_EXIT = 128 + signal.SIGKILL


@dataclass(frozen=True)
class Requests:
    """Whoever may ask this attempt to stop."""

    num_signals: Callable[[], int]
    """So far. The second one means at once."""
    notice: Callable[[], Notice | None] = lambda: None
    """Of the provider. A signal that follows it is the first one: providers send both."""
    elsewhere: Callable[[], Asked | None] = lambda: None
    """What another machine was asked."""

    def any(self) -> bool:
        return self.num_signals() > 0 or self.notice() is not None or self.elsewhere() is not None

    def allowed_s(self, grace_s: float) -> float:
        """How long from now until the machine or its patience is gone."""
        notice, asked = self.notice(), self.elsewhere()
        if notice is None and asked is not None and not self.num_signals():
            return max(asked.until - time.monotonic(), 0.0)
        if notice is None or notice.until is None:
            return grace_s
        left_s = notice.until - time.time()
        if left_s <= 0:
            return grace_s  # it lives on, or a clock is wrong
        return min(left_s, grace_s) if self.num_signals() else left_s


def limit_at(job: JobSpec, started: float) -> float | None:
    """When the time limit is reached, by time.monotonic(); `started` is when the attempt was. None without a limit."""
    if job.timeout_s is None:
        return None
    if job.limit_from is None:
        return started + job.timeout_s
    used_s = max(0.0, time.time() - job.limit_from)  # the clock of another machine may be ahead
    return time.monotonic() + job.timeout_s - used_s


class Watch:
    """Decides, turn by turn, what to send the trainers, and in the end what became of them."""

    def __init__(
        self, job: JobSpec, trainers: Trainers, run_dir: Path, started: float, link: Link | None = None
    ) -> None:
        self._trainers = trainers
        self._run_dir = run_dir
        self._grace_s = job.grace_s
        self._strike = limit_at(job, started)
        self._given_s = None if self._strike is None else max(0.0, self._strike - started)
        self._measured = Measured(run_dir / EVENTS_FILE)
        self._measured_at = 0.0
        self._ask: float | None = None
        self._asked: Reason | None = None
        self._is_asked_here = True
        self._num_signals = 0
        self._first_failures: list[int] = []
        self._kill_at: float | None = None
        self._stragglers_until: float | None = None
        self._killed = False
        self._link = link
        self._is_abandoned = False
        self.is_bereft = False
        """Once there is a verdict: whether trainers may have ended only because those of other machines had."""

    def send_by(self, exit_code: int) -> float | None:
        """Until when what is left may be sent (time.monotonic); None where nobody waits for the end.

        A finished model is worth more than the time limit.
        """
        is_limited = (self._asked == "signal" and self._is_asked_here) or (
            self._asked == "deadline" and exit_code != ExitCode.DONE
        )
        return self._kill_at if is_limited else None

    def all_gone(self) -> bool:
        return all(status is not None for status in self._trainers.poll())

    def turn(self, requests: Requests, *, is_superseded: bool) -> None:
        now = time.monotonic()
        if is_superseded:
            self._trainers.kill()
        num_signals = requests.num_signals()
        asked = requests.elsewhere()
        if self._asked is None and asked is not None and not num_signals and requests.notice() is None:
            number = DEADLINE_SIGNAL if asked.reason == "deadline" else signal.SIGTERM
            self._ask_to_stop(asked.reason, number, max(asked.until, now), asked.why)
            self._is_asked_here = False
        elif self._asked is None and requests.any():
            notice = requests.notice()
            why = notice.sentence if notice and not num_signals else None
            self._ask_to_stop("signal", signal.SIGTERM, now + requests.allowed_s(self._grace_s), why)
        elif self._asked is None and self._is_deadline_near(now):
            assert self._strike is not None
            self._ask_to_stop("deadline", DEADLINE_SIGNAL, max(self._strike, now))
        elif num_signals > self._num_signals and self._kill_at is not None:
            self._kill_at = min(self._kill_at, now + self._grace_s)
        self._num_signals = num_signals
        failures = [status for status in self._trainers.poll() if status]
        if failures and not self._first_failures:
            self._first_failures = failures
            self._stragglers_until = now + STRAGGLER_S
        if self._link is not None and self._link.has_failed() and not self._is_abandoned:
            self._is_abandoned = True
            patience_s = STRAGGLER_S + (self._grace_s if _stop_in_order(self._link) else 0.0)
            self._stragglers_until = min(self._stragglers_until or math.inf, now + patience_s)
        if num_signals > 1 or any(until and now >= until for until in (self._kill_at, self._stragglers_until)):
            self._killed = True
            self._trainers.kill()

    def verdict(self, told: Verdict | None, newest: int | None) -> Verdict:
        """What a rank told us, else what its exit status says. `newest` is the step of the newest checkpoint."""
        statuses = [status for status in self._trainers.poll() if status is not None]
        failures = self._first_failures or [status for status in statuses if status]
        if told is not None and (told.cause == "crash" or told.is_bereft) and _is_bereft(failures):
            told = None
        if self._link is not None:
            has_aborted = -signal.SIGABRT in failures  # as NCCL's watchdog does
            self.is_bereft = told.is_bereft if told else has_aborted or (self._killed and self._is_abandoned)
        if told is not None and (told.exit_code != ExitCode.DONE or not any(statuses)):
            return told
        if not any(statuses):
            return Verdict(ExitCode.DONE, "done")
        if self._asked is not None and self._killed:
            left = f"the newest checkpoint is step {newest}" if newest is not None else "there is no checkpoint yet"
            return Verdict(ExitCode.PREEMPTED, self._asked, f"killed before it could save; {left}")
        if -signal.SIGKILL in failures:
            return Verdict(
                _KILLED_EXIT, "killed", "the trainer was killed (SIGKILL), most often because memory ran out"
            )
        how = signal.Signals(-failures[0]).name if failures[0] < 0 else f"exit code {failures[0]}"
        return Verdict(ExitCode.TRAINING, "crash", f"the trainer ended with {how}; its last words are in log.txt")

    def _is_deadline_near(self, now: float) -> bool:
        """Whether what is left is needed to save and to send."""
        if self._strike is None or self._given_s is None:
            return False
        if now - self._measured_at >= _MEASURE_EVERY_S:
            self._measured_at = now
            measured = self._measured.read()
            lead = lead_s(self._given_s, self._grace_s, measured.save_s, measured.push_s)
            self._ask = self._strike - lead
        return self._ask is not None and now >= self._ask

    def _ask_to_stop(self, reason: Reason, number: int, kill_at: float, why: str | None = None) -> None:
        self._asked = reason
        self._kill_at = kill_at if self._strike is None else min(kill_at, max(self._strike, time.monotonic()))
        left_s = self._kill_at - time.monotonic()
        StopOrder(time.time() + left_s, why).write(self._run_dir)
        if self._link is not None:
            self._link.tell_stop(reason, why, left_s)
        self._trainers.signal(number)


def _is_bereft(failures: list[int]) -> bool:
    """Whether a crash that was told is only that of a rank whose peer was killed: it loses its connection."""
    return -signal.SIGKILL in failures or (bool(failures) and all(status < 0 for status in failures))


def _stop_in_order(link: Link) -> bool:
    """Whether other machines have ended because they were asked to: then all end at the same step."""
    return not link.gone and all(
        verdict.cause in ("signal", "deadline", "done") for verdict in list(link.ended.values())
    )


class SendLimit:
    """When to end the sending of what is left, though it is not all sent."""

    def __init__(self, requests: Requests, *, send_by: float | None, grace_s: float) -> None:
        self._requests = requests
        self._send_by, self._grace_s = send_by, grace_s

    def __call__(self) -> str | None:
        """The reason; None to go on. A first request to stop leaves it the grace time, a second one nothing."""
        now = time.monotonic()
        if self._requests.num_signals() > 1:
            return "it was asked a second time to stop before all was sent"
        if self._send_by is None and self._requests.any():
            self._send_by = now + self._requests.allowed_s(self._grace_s)
        is_over = self._send_by is not None and now >= self._send_by
        return "the time to stop in was over before all was sent" if is_over else None
