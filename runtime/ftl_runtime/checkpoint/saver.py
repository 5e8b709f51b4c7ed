"""Makes checkpoints of a training, one at a time, and behind its back.

The training waits while the state of its step is copied in main memory. A thread of rank 0 writes the copy into a
stage, seals and publishes it, reads it back, and drops what it supersedes. A kill meanwhile leaves a stage, which
counts for nothing.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from ftl.contract import CHECKPOINTS_DIR
from ftl.errors import FtlError, StorageError
from ftl_runtime import ranks
from ftl_runtime.checkpoint import manifest
from ftl_runtime.checkpoint.buffers import Buffers
from ftl_runtime.checkpoint.contents import Contents
from ftl_runtime.checkpoint.manifest import BrokenCheckpoint
from ftl_runtime.checkpoint.room import free_main_memory
from ftl_runtime.checkpoint.store import Checkpoint
from ftl_runtime.checkpoint.volume import storage_errors
from ftl_runtime.context import Context
from ftl_runtime.memory import is_out_of_memory

_SHARE = 0.8
"""Of the free main memory, what a copy may take."""

State = Callable[[Path], AbstractContextManager[Contents]]
"""Writes the small files of a checkpoint into a directory; inside, the large ones hold what they are to hold."""


class Saver:
    """All ranks have one and ask it the same things; rank 0 has the thread."""

    def __init__(self, ctx: Context, keep: int, *, may_be_behind: bool) -> None:
        """`keep` is how many checkpoints stay. Unless it may be behind, `save` returns when all is done."""
        self.saved: Checkpoint | None = None
        """The newest one that was verified."""
        self._ctx, self._keep = ctx, keep
        self._may_be_behind = may_be_behind
        self._has_warned = False
        self._buffers = Buffers()
        self._work: _Work | None = None

    def save(self, step: int, state: State, best_step: int | None) -> None:
        """`best_step` stays beside the newest ones. Raises StorageError, that of the checkpoint before included."""
        began = time.monotonic()
        self.wait()
        device, store = self._ctx.device, self._ctx.store
        started = time.monotonic()
        stage = ranks.share(store.stage(step) if device.is_main else None, device)
        assert stage is not None
        try:
            here = self._ctx.mesh.here(stage)
            with storage_errors(here.parent), state(here) as contents:
                copy = self._copied(contents) if device.is_main else None
                if copy is None:
                    contents.write()
            self._ctx.mesh.collect(stage)
        except BaseException:
            store.discard(stage)
            raise
        if device.is_main:
            blocked_s = None if copy is None else time.monotonic() - began
            publish = partial(_publish, self._ctx, self._keep, stage, step, copy or Contents(), best_step)
            work = _Work(partial(publish, started, blocked_s))
            if copy is None:
                work.run()
                self._take(work)
            else:
                self._work = work
                work.start()
        ranks.wait(device)

    def look(self) -> None:
        """Take note of the one under way if it is over; never waits. Raises StorageError if it failed."""
        if self._work is not None and not self._work.is_alive():
            self._take(self._work)

    def wait(self) -> None:
        """The same, once it is over. All ranks wait."""
        if self._work is not None:
            self._work.join()
            self._take(self._work)
        ranks.wait(self._ctx.device)

    @contextmanager
    def seen_through(self) -> Iterator[None]:
        """What is under way when the block ends is finished, however it ends. An error of the block goes first."""
        try:
            yield
        except BaseException:
            if self._work is not None:
                self._work.join()
                try:
                    self._take(self._work)
                except FtlError as error:
                    self._ctx.warn(str(error))
            raise
        finally:
            self._buffers.clear()
        self.wait()

    def _copied(self, contents: Contents) -> Contents | None:
        """None where the training must wait until all is written."""
        if not self._may_be_behind:
            return None
        needed, free = contents.num_bytes() - self._buffers.num_bytes, free_main_memory()
        if free is None or needed <= _SHARE * free:
            try:
                return contents.copied(self._buffers)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) and "out of memory" not in str(error):  # the latter of pinned memory
                    raise
        self._buffers.clear()
        if not self._has_warned:
            self._has_warned = True
            room = "" if free is None else f", of which {free / 2**30:.1f} GiB are free"
            self._ctx.warn(
                f"training waits for each save: to go on meanwhile it needs another {needed / 2**30:.1f} GiB of main "
                f"memory{room}"
            )
        return None

    def _take(self, work: "_Work") -> None:
        self._work = None
        if work.error is not None:
            raise work.error
        self.saved = work.saved


class _Work(threading.Thread):
    def __init__(self, publish: Callable[[], Checkpoint]) -> None:
        super().__init__(name="checkpoint", daemon=True)
        self.saved: Checkpoint | None = None
        self.error: BaseException | None = None
        self._publish = publish

    def run(self) -> None:
        try:
            self.saved = self._publish()
        except BaseException as error:  # raised again in the training's thread
            self.error = error


def _publish(
    ctx: Context,
    keep: int,
    stage: Path,
    step: int,
    contents: Contents,
    best_step: int | None,
    started: float,
    blocked_s: float | None,
) -> Checkpoint:
    """The stage is used up, also by an error. `started` is by time.monotonic; `blocked_s` is how long the training
    waited, None if it still does."""

    def tell(state: str, size: int) -> None:
        seconds = time.monotonic() - started
        data = {"step": step, "path": f"{CHECKPOINTS_DIR}/{checkpoint.path.name}", "state": state, "bytes": size}
        waited = seconds if blocked_s is None else blocked_s
        ctx.emit("checkpoint", {**data, "seconds": seconds, "blocked_s": waited})

    try:
        with storage_errors(stage.parent):
            contents.write()
        checkpoint = ctx.store.commit(stage, step)
    except BaseException:
        ctx.store.discard(stage)
        raise
    tell("saved", manifest.size_of(checkpoint.path))
    try:
        size = ctx.store.verify(checkpoint)
    except BrokenCheckpoint as error:
        raise StorageError(f"{checkpoint.path}: reads back other than it was written: {error}") from error
    tell("verified", size)
    ctx.store.prune(keep, checkpoint, best_step)
    return checkpoint
