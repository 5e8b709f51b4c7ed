"""Being asked to stop: by a signal from outside, or because the deadline is near.

Imported before torch, so it must stay light.
"""

import contextlib
import json
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Reason = Literal["signal", "deadline"]

DEADLINE_SIGNAL = signal.SIGUSR1
"""What the supervisor sends when timeout_s is near; TERM and INT come from outside."""

_ORDER_FILE = ".stop.json"

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, DEADLINE_SIGNAL)


class StopFlag:
    """Set by the first signal, read at step boundaries.

    Until training starts there is nothing worth finishing: `leave`, when set, is called from the handler itself and
    ends the process.
    """

    def __init__(self) -> None:
        self.reason: Reason | None = None
        self._leave: Callable[[Reason], None] | None = None

    def install(self) -> None:
        """Set the handlers, then let in the signals that have waited: spawn.py starts trainers with them blocked."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def leave_with(self, leave: Callable[[Reason], None]) -> None:
        """From here on a stop calls `leave`; at once if one has come already."""
        self._leave = leave
        if self.reason is not None:
            leave(self.reason)

    def hold(self) -> None:
        """From here on a stop only sets `reason`: whoever trains now reads it and leaves in good order."""
        self._leave = None

    def _on_signal(self, number: int, frame: object) -> None:
        if self.reason is None:
            self.reason = "deadline" if number == DEADLINE_SIGNAL else "signal"
            if self._leave is not None:
                self._leave(self.reason)


@dataclass(frozen=True)
class StopOrder:
    """What the supervisor lets trainers know about a stop beside the signal: a file of the run directory."""

    until: float
    """When they are killed (time.time())."""
    why: str | None = None
    """The sentence of who wants it, where there is more to say than the reason."""

    def left_s(self, grace_s: float) -> float:
        """How long from now. Whoever asks is alive, so where it is past a clock was set: then it is the grace time."""
        left_s = self.until - time.time()
        return left_s if left_s > 0 else grace_s

    def write(self, run_dir: Path) -> None:
        """Never raises: without it trainers reckon with the whole grace time."""
        temporary = run_dir / f"{_ORDER_FILE}.tmp"
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(asdict(self)))
            temporary.replace(run_dir / _ORDER_FILE)

    @classmethod
    def read(cls, run_dir: Path) -> "StopOrder | None":
        try:
            record = json.loads((run_dir / _ORDER_FILE).read_text())
            return cls(float(record["until"]), record["why"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    @staticmethod
    def clear(run_dir: Path) -> None:
        """Take away that of an earlier attempt."""
        (run_dir / _ORDER_FILE).unlink(missing_ok=True)
