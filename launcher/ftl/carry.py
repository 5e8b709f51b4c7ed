"""What a run has made so far goes along when it goes on in another place: its newest checkpoint, its events, its log.

The run directory on this machine is the station between two places: `take` brings there what lies elsewhere, and a
backend whose jobs do not see that directory takes from it what JobSpec.carried names. The newest checkpoint wins,
wherever it is: each is compared with its manifest, and one that is not what it says is passed over.
"""

import json
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ftl import deliver
from ftl.atomic import write_atomic
from ftl.backends import HERE, Backend
from ftl.contract import (
    CHECKPOINTS_DIR,
    EVENTS_FILE,
    FIT_FILE,
    LOG_FILE,
    MANIFEST_FILE,
    OUTPUT_DIR,
    RESULT_FILE,
    STARTS_FILE,
    Event,
)
from ftl.errors import DeliveryError, Problem, RunError, StorageError
from ftl.jobs import RunRecord

_FILES = (LOG_FILE, FIT_FILE, STARTS_FILE, EVENTS_FILE)
"""What later attempts read beside the checkpoint."""
_TRIES = 4
"""So many checkpoints are looked for elsewhere: those before them were dropped when newer ones were saved."""
_PROGRESS_FILE = "progress.json"  # of a checkpoint, as ftl_runtime writes it


@dataclass(frozen=True)
class Taken:
    """What lies in the run directory on this machine, for the attempt that is next."""

    names: tuple[str, ...]
    """As JobSpec.carried."""
    last_attempt: int
    """The highest number that an attempt has told of itself; providers that start again count, too."""
    notes: tuple[str, ...]
    """Sentences for the user."""


@dataclass
class _Told:
    """What the events of a run say about its checkpoints."""

    verified: set[int]
    in_stores: dict[int, str]
    """Step -> the store outside all places that has it."""
    last_attempt: int


def take(record: RunRecord, old: Backend, *, is_done: bool) -> Taken:
    """Bring to this machine what the next attempt needs; where the run is done, its model.

    Blocks while it is copied. Raises RunError where checkpoints were saved and none can be had any more, BackendError
    where the old place does not answer.
    """
    is_elsewhere = old.place != HERE and record.handle is not None
    for name in _FILES if is_elsewhere else ():
        assert record.handle is not None
        content, own = old.read(record.handle, name, 0), record.dir / name
        if content and not (own.is_file() and own.stat().st_size > len(content)):
            write_atomic(own, content)
    told = _told(record)
    notes: list[str] = []
    if is_done:
        names = _model(record, old if is_elsewhere else None)
    else:
        names, notes = _checkpoints(record, old if is_elsewhere else None, told)
    names += [name for name in _FILES if (record.dir / name).is_file()]
    return Taken(tuple(names), told.last_attempt, tuple(notes))


def _model(record: RunRecord, old: Backend | None) -> list[str]:
    if old is not None:
        assert record.handle is not None
        try:
            _fetch(record, old, OUTPUT_DIR)
        except FileNotFoundError as error:
            raise DeliveryError(Problem(f"run {record.id}", None, "its model is not where it was made")) from error
        write_atomic(record.dir / RESULT_FILE, old.read(record.handle, RESULT_FILE, 0))
    return [OUTPUT_DIR, RESULT_FILE]


def _checkpoints(record: RunRecord, old: Backend | None, told: _Told) -> tuple[list[str], list[str]]:
    """The names of the newest checkpoint and of the best one, which are here, and notes."""
    notes: list[str] = []
    stored = max(told.in_stores, default=0)
    step = None
    for candidate in sorted(told.verified | _steps_here(record), reverse=True):
        if candidate <= stored:
            break
        if reason := _why_not(record, old if len(notes) < _TRIES else None, candidate):
            notes.append(f"the checkpoint of step {candidate} is passed over: {reason}")
        else:
            step = candidate
            break
    if step is None and not stored:
        if notes:
            remedy = (
                "`ftl train` starts it anew; with `checkpoints` in the cloud file, or hub_model_id, they outlive it"
            )
            newest = notes[0].replace(" is passed over: ", ": ")
            raise RunError(Problem(f"run {record.id}", newest, "none of its checkpoints can be had", remedy))
        if record.spec.stores and not told.last_attempt:  # the machine is gone, and its events with it
            return [], ["it goes on from the newest checkpoint in its stores"]
        return [], ["it has no checkpoint yet, and begins at its start"]
    if step is None:
        return [], [*notes, f"the checkpoint of step {stored} is fetched from {told.in_stores[stored]}"]
    names = [_name(step)]
    best = _best_step(record, step)
    if best is not None and best != step and best > stored and _why_not(record, old, best) is None:
        names.insert(0, _name(best))
    size = sum(path.stat().st_size for name in names for path in (record.dir / name).rglob("*") if path.is_file())
    return names, [*notes, f"the checkpoint of step {step} goes along: {size / 2**20:.1f} MiB"]


def _why_not(record: RunRecord, old: Backend | None, step: int) -> str | None:
    """Why the checkpoint of that step cannot be had here; None when it is here, and every file is right."""
    try:
        if (record.dir / _name(step) / MANIFEST_FILE).is_file():
            deliver.verify(record.dir / _name(step))
            return None
    except DeliveryError as error:
        if old is None:
            return str(error)
    if old is None:
        return "it is not there"
    try:
        _fetch(record, old, _name(step))
    except FileNotFoundError:
        return "it is not there"
    except DeliveryError as error:
        return str(error)
    return None


def _fetch(record: RunRecord, old: Backend, name: str) -> None:
    """Copy a directory of the run here and compare it with its manifest.

    Raises DeliveryError and FileNotFoundError, and StorageError where it cannot be written.
    """
    assert record.handle is not None
    target = record.dir / name
    stage = target.with_name(f".tmp-{target.name}-{uuid.uuid4().hex[:8]}")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        old.fetch(record.handle, name, stage)
        deliver.verify(stage)
        shutil.rmtree(target, ignore_errors=True)
        stage.rename(target)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StorageError(Problem(str(target), error.strerror or str(error), "cannot be written")) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _told(record: RunRecord) -> _Told:
    told = _Told(set(), {}, 0)
    for event in _events(record.dir / EVENTS_FILE):
        told.last_attempt = max(told.last_attempt, event.attempt)
        if event.event != "checkpoint":
            continue
        step, state, store = event.data.get("step"), event.data.get("state"), str(event.data.get("store", ""))
        if isinstance(step, int) and state == "verified":
            told.verified.add(step)
        elif isinstance(step, int) and state == "pushed" and not store.startswith("file:"):
            told.in_stores[step] = store
    return told


def _events(path: Path) -> Iterator[Event]:
    """Lines that a kill tore are left out."""
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        try:
            yield Event.read_json(line)
        except ValidationError:
            continue


def _steps_here(record: RunRecord) -> set[int]:
    steps = (path.name.removeprefix("checkpoint-") for path in (record.dir / CHECKPOINTS_DIR).glob("checkpoint-*"))
    return {int(step) for step in steps if step.isdigit()}


def _best_step(record: RunRecord, step: int) -> int | None:
    """The step that was best when that checkpoint was saved."""
    try:
        best = json.loads((record.dir / _name(step) / _PROGRESS_FILE).read_bytes()).get("best_step")
    except (OSError, ValueError, AttributeError):
        return None
    return best if isinstance(best, int) else None


def _name(step: int) -> str:
    return f"{CHECKPOINTS_DIR}/checkpoint-{step}"
