"""Being asked to stop: by a signal from outside, or because the deadline is near.

Imported before torch, so it must stay light.
"""

import signal
from collections.abc import Callable
from typing import Literal

Reason = Literal["signal", "deadline"]

DEADLINE_SIGNAL = signal.SIGUSR1
"""What the supervisor sends when timeout_s is near; TERM and INT come from outside."""

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
