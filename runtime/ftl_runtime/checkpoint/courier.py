"""Brings the checkpoints of one run to one store, and at the end its model: a thread of ftl_runtime.checkpoint.sync.

What is to be sent follows from what lies in the run directory and in the store, so nothing is forgotten by a restart.
A failure is told once, and tried again until it passes; only at the end there is a limit to that.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ftl.contract import MANIFEST_FILE, HubRef, StoreRef
from ftl.errors import FtlError
from ftl_runtime.checkpoint.manifest import BrokenCheckpoint
from ftl_runtime.checkpoint.outbox import Outbox
from ftl_runtime.checkpoint.patience import DELAYS_S
from ftl_runtime.checkpoint.remote import RemoteStore, SupersededError, Told
from ftl_runtime.checkpoint.store import Checkpoint

Emit = Callable[[str, dict[str, Any]], None]  # Any: the shape depends on the event, see ftl.contract
Finish = Callable[[RemoteStore, Told], str | None]

_Result = TypeVar("_Result")
_POLL_S = 0.2
_TOLD_EVERY_S = 2.0


class Courier(threading.Thread):
    """Sends until it is told to finish, and then what is left. Its fields tell how it stands, from any thread."""

    def __init__(
        self,
        store: RemoteStore,
        ref: StoreRef,
        run_dir: Path,
        number: int,
        owner: str,
        emit: Emit,
        bundle: Path | None = None,
    ) -> None:
        super().__init__(name=store.label, daemon=True)
        self.store = store
        self.ref = ref
        self.failing_since: float | None = None
        self.failure: str | None = None
        """The sentence of the failure that it is in, if it is in one."""
        self.superseded: str | None = None
        self.is_delivered = False
        self.is_done = False
        self._emit = emit
        self._owner = owner
        self._outbox = Outbox(run_dir, str(number))
        self._keeps_all = isinstance(ref, HubRef) and ref.strategy == "all_checkpoints"
        self._sends_checkpoints = not (isinstance(ref, HubRef) and ref.strategy == "end")
        self._there: set[int] = set()
        """Steps that the store has, as far as it was compared or said so itself."""
        self._given_up: set[int] = set()
        """Steps that are broken here, or were dropped before they could be sent."""
        self._run_dir = run_dir
        self._bundle = bundle
        """What is still to be put beside the checkpoints."""
        self._bundle_from = 0.0
        self._finish: Finish | None = None
        self._must_end = threading.Event()

    def end(self, finish: Finish | None) -> None:
        """No more checkpoints will come: send what is left, then what `finish` sends."""
        self._finish = finish
        self._must_end.set()

    def run(self) -> None:
        try:
            self._persist(lambda: self.store.claim(self._owner))
            if self._sends_checkpoints:
                self._there = set(self._persist(self.store.steps))
                self._given_up = {step for step in self._outbox.local_steps() if step < max(self._there, default=0)}
                self._send_checkpoints()
            self._must_end.wait()
            if self._finish is not None:
                self._deliver(self._finish)
            self.is_done = True
        except SupersededError as error:
            self.superseded = str(error)
        except Exception as error:
            self.failure = f"{self.store.label}: {type(error).__name__}: {error}"
            raise  # a bug of ours: its traceback goes to the log

    def _send_checkpoints(self) -> None:
        while True:
            is_last_look = self._must_end.is_set()
            step = self._next()
            if step is not None:
                self._send(step)
            elif is_last_look:
                return
            elif self._bundle is not None and time.monotonic() >= self._bundle_from:
                self._send_bundle(self._bundle)
            else:
                self._must_end.wait(_POLL_S)

    def _send_bundle(self, bundle: Path) -> None:
        """While there is no checkpoint to send. A store that fails is told of when it does not take one of those."""
        try:
            self.store.keep_bundle(bundle, self._run_dir)
        except SupersededError:
            raise
        except (FtlError, OSError):
            self._bundle_from = time.monotonic() + DELAYS_S[-1]
        else:
            self._bundle = None

    def _next(self) -> int | None:
        """The step to be sent now. Where all are kept none is passed over; else the newest is all that counts."""
        local = self._outbox.local_steps()
        open_steps = [step for step in local if step not in self._there | self._given_up]
        if self._keeps_all:
            for step in open_steps:
                self._outbox.hold(step)
            return open_steps[0] if open_steps else None
        newer = [step for step in open_steps if step > max(self._there, default=-1)]
        return newer[-1] if newer else None

    def _send(self, step: int) -> None:
        checkpoint = self._outbox.hold(step)
        if checkpoint is None:
            self._given_up.add(step)
            return
        started = time.monotonic()
        told = _Progress(self._emit, self.store.label, checkpoint.path.name)
        dropped = self._superseded_steps()
        try:
            self._persist(lambda: self._put(checkpoint, dropped, told))
        except BrokenCheckpoint as error:
            self._given_up.add(step)
            self._emit("warning", {"message": f"checkpoint-{step} was not sent to {self.store.label}: {error}"})
        else:
            self._there = self._there - dropped | {step}
            seconds = time.monotonic() - started
            said = {"step": step, "store": self.store.label, "state": "pushed", "seconds": seconds, "bytes": told.total}
            self._emit("checkpoint", said)
        finally:
            self._outbox.release(step)

    def _put(self, checkpoint: Checkpoint, superseded: frozenset[int], told: Told) -> None:
        try:
            self.store.put(checkpoint, superseded, told)
        except SupersededError:
            raise
        except Exception as error:
            if (checkpoint.path / MANIFEST_FILE).exists():
                raise
            # It could not be held, and a newer one has taken its place: that is to be sent, and not this one for ever.
            sentence = "it was dropped here before it had come over; with a larger save_steps there is time for it"
            raise BrokenCheckpoint(sentence) from error

    def _superseded_steps(self) -> frozenset[int]:
        """Steps in the store that the run directory has dropped, but for the newest that is known to be there."""
        if self._keeps_all or not self._there:
            return frozenset()
        return frozenset(self._there - {*self._outbox.local_steps(), max(self._there)})

    def _deliver(self, finish: Finish) -> None:
        told = _Progress(self._emit, self.store.label, "output")
        revision = self._persist(lambda: finish(self.store, told))
        self.is_delivered = True
        self._emit("delivered", {"store": self.store.label, "revision": revision, "bytes": told.total})

    def _persist(self, call: Callable[[], _Result]) -> _Result:
        """What the call gives, tried again until it does. Raises SupersededError and BrokenCheckpoint."""
        tries = 0
        while True:
            try:
                given = call()
            except SupersededError:
                raise
            except FtlError as error:
                tries += 1
                self._note_failure(str(error))
                tries = self._pause(tries)
            else:
                if self.failing_since is not None:
                    self._emit("warning", {"message": f"{self.store.label} answers again"})
                self.failing_since = self.failure = None
                return given

    def _pause(self, tries: int) -> int:
        """Wait before the next try. Where the end of the run comes meanwhile, the next comes at once, as the first."""
        delay = DELAYS_S[min(tries, len(DELAYS_S)) - 1]
        if self._must_end.is_set():
            time.sleep(delay)
            return tries
        return 0 if self._must_end.wait(delay) else tries

    def _note_failure(self, sentence: str) -> None:
        if self.failing_since is None:
            self.failing_since = time.monotonic()
            self._emit("warning", {"message": f"{sentence}; training goes on, and it is tried again"})
        self.failure = sentence


class _Progress:
    """Tells how much of an upload has come over, not too often."""

    def __init__(self, emit: Emit, label: str, what: str) -> None:
        self._emit = emit
        self._said = {"store": label, "what": what}
        self._started = self._told_at = time.monotonic()
        self.total = 0

    def __call__(self, done: int, total: int) -> None:
        self.total = total
        now = time.monotonic()
        if now - self._told_at < _TOLD_EVERY_S:
            return
        self._told_at = now
        rate = done / (now - self._started)
        share = done / total if total else 1.0
        self._emit("upload", {**self._said, "bytes": done, "total_bytes": total, "share": share, "bytes_per_s": rate})
