"""Notices that nothing goes on any more, and has every thread say where it stands."""

import faulthandler
import threading
import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

FLOOR_S = 600.0
_TIMES = 20
_STDERR = 2


class HangWatch(TrainerCallback):
    """Expects a sign of life every ten minutes, or twenty times the longest gap between two so far if that is more.

    A step, a micro-batch, a batch of an evaluation and a saved checkpoint are signs. When none comes, the stacks of all
    threads of this rank go to the log, by a thread that needs no interpreter lock, and a warning is given. The
    training is left alone: it may be a slow disk.
    """

    def __init__(self, warn: Callable[[str], None], *, floor_s: float = FLOOR_S, log_fd: int = _STDERR) -> None:
        self._warn = warn
        self._floor_s = floor_s
        self._log_fd = log_fd
        self._over = threading.Event()
        self._armed_at = self._seen_at = time.monotonic()
        self._longest_s = 0.0
        self._has_warned = False

    @property
    def timeout_s(self) -> float:
        return max(self._floor_s, _TIMES * self._longest_s)

    def start(self) -> None:
        self._seen_at = time.monotonic()
        self._arm()
        threading.Thread(target=self._look, name="hang watch", daemon=True).start()

    def beat(self) -> None:
        """Something has happened. Takes a microsecond: the alarm is set anew only when a part of its time is over."""
        now = time.monotonic()
        self._longest_s = max(self._longest_s, now - self._seen_at)
        self._seen_at = now
        if self._has_warned or now - self._armed_at > self.timeout_s / _TIMES:
            self._has_warned = False
            self._arm()

    def stop(self) -> None:
        self._over.set()
        faulthandler.cancel_dump_traceback_later()

    def _arm(self) -> None:
        self._armed_at = time.monotonic()
        faulthandler.dump_traceback_later(self.timeout_s, file=self._log_fd)

    def _look(self) -> None:
        while not self._over.wait(self._floor_s / 100):
            silent_s = time.monotonic() - self._seen_at
            if silent_s > self.timeout_s and not self._has_warned:
                self._has_warned = True
                self._warn(
                    f"nothing has happened for {silent_s:.0f} s, where the longest step took {self._longest_s:.1f} s; "
                    "what each thread is doing stands in log.txt. It may go on; if it does not, stop and resume it"
                )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.beat()  # Any: the Trainer passes its parts, none of which is used

    on_substep_end = on_prediction_step = on_save = on_step_end
