"""The newest checkpoint of a run, wherever it is: in its directory, or in one of its stores."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

from ftl.contract import JobSpec
from ftl.sources.retry import UnreachableError
from ftl_runtime.checkpoint.manifest import BrokenCheckpoint
from ftl_runtime.checkpoint.patience import START_PATIENCE_S, Patience, bound_xet
from ftl_runtime.checkpoint.remote import RemoteStore, open_store
from ftl_runtime.checkpoint.store import Checkpoint, CheckpointStore
from ftl_runtime.checkpoint.volume import room_errors

Emit = Callable[[str, dict[str, Any]], None]  # Any: the shape depends on the event, see ftl.contract
_Result = TypeVar("_Result")
_TIMES_BROKEN = 2
"""A checkpoint that came broken so often is believed to be."""


def newest(local: CheckpointStore, job: JobSpec, emit: Emit) -> Checkpoint | None:
    """The newest valid checkpoint over all stores, copied here if it is not: what is broken is passed over and told.

    Raises UnreachableError when a store does not answer for START_PATIENCE_S: what it holds may be newer, and training
    what is trained already costs more than waiting. Raises ConfigError when it refuses, and StorageError when there is
    no room here.
    """
    found = local.latest_valid()
    stores = _opened(job)
    offers = [
        (step, store)
        for store in stores
        for step in _patiently(store.steps, store, emit)
        if not found or step > found.step
    ]
    for step, store in sorted(offers, key=lambda offer: -offer[0]):
        fetched = _fetch(local, step, store, emit)
        if fetched is not None:
            return fetched
    return found


def one(local: CheckpointStore, step: int, job: JobSpec, emit: Emit) -> Checkpoint | None:
    """The checkpoint of that step, if it is valid here or in a store. Raises as `newest`."""
    found = local.valid(step)
    for store in _opened(job) if found is None else ():
        if step in _patiently(store.steps, store, emit) and (found := _fetch(local, step, store, emit)):
            break
    return found


def _opened(job: JobSpec) -> list[RemoteStore]:
    bound_xet()
    return [open_store(ref, job.run_id) for ref in job.stores]


def _fetch(local: CheckpointStore, step: int, store: RemoteStore, emit: Emit) -> Checkpoint | None:
    started = time.monotonic()
    name = f"checkpoint-{step}"
    patience = Patience()
    total = 0

    def told(done: int, of: int) -> None:
        nonlocal total
        total = of
        patience.renew()
        share = done / of if of else 1.0
        label = f"{name} from {store.label}"
        emit("phase", {"name": "starting", "label": label, "bytes": done, "total_bytes": of, "share": share})

    def attempt() -> Checkpoint:
        stage = local.stage(step)
        try:
            with room_errors(stage.parent):
                store.fetch(step, stage, told)
            return local.adopt(stage, step)
        except BaseException:
            local.discard(stage)
            raise

    try:
        checkpoint = _patiently(attempt, store, emit, patience)
    except BrokenCheckpoint as broken:
        _patiently(lambda: store.quarantine(step), store, emit)
        emit("checkpoint", {"step": step, "store": store.label, "state": "quarantined"})
        emit("warning", {"message": f"{name} of {store.label} is broken and is passed over: {broken}"})
        return None
    seconds = time.monotonic() - started
    emit("checkpoint", {"step": step, "store": store.label, "state": "fetched", "seconds": seconds, "bytes": total})
    return checkpoint


def _patiently(
    call: Callable[[], _Result], store: RemoteStore, emit: Emit, patience: Patience | None = None
) -> _Result:
    """What the call gives, tried again while the other side does not answer, as long as patience lasts; and once more
    where what came was broken, which may have happened on the way."""
    patience = patience or Patience()
    tries, num_broken = 0, 0
    while True:
        try:
            return call()
        except BrokenCheckpoint:
            num_broken += 1
            if num_broken == _TIMES_BROKEN:
                raise
        except UnreachableError as error:
            tries += 1
            if not patience.pause(tries):
                raise UnreachableError(
                    f"{error}; {store.label} has not answered for {START_PATIENCE_S:.0f} s, and what it holds may be "
                    "newer than what is here: nothing was trained; resume when it answers"
                ) from error
            if tries == 1:
                message = f"{error}; it is tried again for {START_PATIENCE_S:.0f} s, for it may hold a newer checkpoint"
                emit("warning", {"message": message})
