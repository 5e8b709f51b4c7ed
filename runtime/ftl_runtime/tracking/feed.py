"""A thread between the training and one tracker: the training never waits for it, and never fails with it."""

import queue
import threading
from collections.abc import Callable, Sequence

from ftl_runtime.tracking.tracker import End, Run, Sample, Tracker, Values

Warn = Callable[[str], None]


class Feed:
    """Starts the tracker, and passes on what it is given in order. The first failure is told, and is the last."""

    def __init__(self, name: str, tracker: Tracker, run: Run, warn: Warn) -> None:
        self._name = name
        self._tracker = tracker
        self._warn = warn
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)
        self._thread.start()
        self._jobs.put(lambda: tracker.start(run))

    def log(self, step: int, values: Values) -> None:
        self._jobs.put(lambda: self._tracker.log(step, values))

    def log_samples(self, step: int, samples: Sequence[Sample]) -> None:
        self._jobs.put(lambda: self._tracker.log_samples(step, samples))

    def finish(self, end: End) -> None:
        """Nothing comes after it. Returns at once."""
        self._jobs.put(lambda: self._tracker.finish(end))
        self._jobs.put(None)

    def wait(self, timeout_s: float) -> None:
        """Returns when the tracker has finished, or after `timeout_s`: what is missing then is told."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._warn(f"{self._name}: is slow to take its last numbers; some may be missing there")

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except BaseException as error:  # some trackers leave with SystemExit; nothing may leave this thread
                text = str(error).strip()
                reason = text.splitlines()[0][:300] if text else type(error).__name__
                self._warn(
                    f"{self._name}: {reason}; the training goes on without it, and events.jsonl has every number"
                )
                return
