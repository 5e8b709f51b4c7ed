"""Run records: what this user has launched, one directory a run below the state directory."""

import fcntl
import hashlib
import json
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, ValidationError

from ftl.atomic import write_atomic
from ftl.contract import Bundle, JobHandle, JobSpec
from ftl.errors import Problem, RunError
from ftl.section import Section
from ftl.state import make_private, state_dir

RECORD_FILE = "record.json"
_ID_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # without 0/o, 1/l/i: ids are read aloud and typed


class Attempt(Section):
    """One submission of a run."""

    number: int
    submitted_at: float
    provider: str | None = None
    """Whom it was submitted to; None in a record of an older ftl, which knew one provider for all."""
    cloud: dict[str, Any] | None = None  # Any: as RunRecord.cloud
    handle: JobHandle | None = None
    """None when the launcher died before the provider answered."""


class RunRecord(Section):
    """record.json. Keys of a newer ftl are kept when an older one rewrites the file."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow")

    version: int = 1
    id: str
    name: str
    created_at: float
    """Seconds since the epoch."""
    ftl_version: str
    config_path: str
    output_dir: str
    """Absolute path where the finished model goes."""
    base_model: str | None = None
    """The base as this machine knows it: an absolute path, or a Hub repository."""
    provider: str
    cloud: dict[str, Any]  # Any: the provider's own section, as JSON
    spec: JobSpec
    bundle: Bundle
    attempts: tuple[Attempt, ...] = ()
    stop_requested_at: float | None = None
    delivered_at: float | None = None

    @property
    def handle(self) -> JobHandle | None:
        """The newest attempt's handle."""
        return self.attempts[-1].handle if self.attempts else None

    @property
    def providers(self) -> tuple[str, ...]:
        """Whom each attempt was submitted to, in order."""
        return tuple(
            attempt.provider or (attempt.handle.provider if attempt.handle else self.provider)
            for attempt in self.attempts
        )

    @property
    def dir(self) -> Path:
        """The run directory, which is also what the runtime writes to on this machine."""
        return runs_dir() / self.id


def runs_dir() -> Path:
    """Where the run directories are."""
    return state_dir() / "runs"


def new_id(name: str) -> str:
    """A fresh run id: six random characters, then the name, so that a short prefix is enough to type."""
    return _id((secrets.choice(_ID_ALPHABET) for _ in range(6)), name)


def id_from(name: str, identity: bytes) -> str:
    """The same, but the same identity has the same id again."""
    digest = hashlib.sha256(identity).digest()
    return _id((_ID_ALPHABET[byte % len(_ID_ALPHABET)] for byte in digest[:6]), name)


def _id(token: Iterable[str], name: str) -> str:
    clean = "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower()).strip("-")[:40]
    return "-".join(filter(None, ("".join(token), clean)))


def save(record: RunRecord) -> None:
    """Write the record atomically: a reader sees the old one or the new one, also after a crash."""
    make_private(record.dir)
    write_atomic(record.dir / RECORD_FILE, record.model_dump_json(indent=1).encode())


def is_known(run_id: str) -> bool:
    """Whether there is a run of exactly that id."""
    return (runs_dir() / run_id / RECORD_FILE).exists()


def load(run_id: str) -> RunRecord:
    """The record of exactly that id. Raises RunError when it is gone or unreadable."""
    path = runs_dir() / run_id / RECORD_FILE
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise RunError(
            Problem(f"run {run_id}", None, "is not known on this machine", "`ftl ps` lists the runs")
        ) from None
    except ValidationError as error:
        detail = error.errors()[0]
        field = ".".join(str(part) for part in detail["loc"])
        raise RunError(
            Problem(str(path), f"{field}: {detail['msg'].lower()}", None, f"`ftl rm {run_id}` removes it")
        ) from error


def find(prefix: str | None) -> RunRecord:
    """The run whose id begins with `prefix`, the newest run for None.

    Raises RunError unless there is exactly one.
    """
    if prefix is None:
        records = all_records()
        if not records:
            raise RunError(Problem("no runs yet", None, None, "start one with `ftl train CFG`"))
        return records[0]
    return load(resolve(prefix))


def resolve(prefix: str) -> str:
    """The one run id that begins with `prefix`. Raises RunError when none or several do."""
    ids = ids_newest_first()
    if prefix in ids:
        return prefix
    matches = [run_id for run_id in ids if run_id.startswith(prefix)] if prefix else []
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise RunError(
            Problem(f"run {prefix!r}", f"begins {len(matches)} ids: {', '.join(matches[:5])}", "give more letters")
        )
    raise RunError(Problem(f"run {prefix!r}", None, "is not known on this machine", "`ftl ps` lists the runs"))


def ids_newest_first() -> list[str]:
    """The ids of all runs with a record."""
    found = []
    for record in runs_dir().glob(f"*/{RECORD_FILE}"):
        if not record.parent.name.startswith("."):
            found.append((_created_at(record), record.parent.name))
    return [run_id for _, run_id in sorted(found, reverse=True)]


def _created_at(path: Path) -> float:
    """When the run was launched; a record that cannot be read sorts last."""
    try:
        return float(json.loads(path.read_bytes())["created_at"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def all_records() -> list[RunRecord]:
    """Every readable record, newest first; one that cannot be read is left out."""
    records = []
    for run_id in ids_newest_first():
        try:
            records.append(load(run_id))
        except RunError:
            continue
    return records


def bundles_needed() -> set[str]:
    """The ids of the bundles that records name, those that only a newer ftl can read among them."""
    found = set()
    for path in runs_dir().glob(f"*/{RECORD_FILE}"):
        if not path.parent.name.startswith("."):
            with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                found.add(str(json.loads(path.read_bytes())["bundle"]["sha256"]))
    return found


@contextmanager
def changing(run_id: str) -> Iterator[RunRecord]:
    """The record, read under an exclusive lock held until the block ends; save inside the block."""
    directory = runs_dir() / run_id
    load(run_id)
    with (directory / ".record.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield load(run_id)


def update(run_id: str, **changes: Any) -> RunRecord:  # Any: values of RunRecord fields
    """Set fields of the record under its lock; the new record."""
    with changing(run_id) as record:
        changed = record.model_copy(update=changes)
        save(changed)
        return changed


def add_attempt(record: RunRecord, attempt: Attempt) -> RunRecord:
    """The record with that attempt added, or put in place of the one of the same number."""
    kept = tuple(a for a in record.attempts if a.number != attempt.number)
    return record.model_copy(update={"attempts": (*kept, attempt)})


def delete(run_id: str) -> None:
    """Remove the run directory. It is renamed first, so that a half-removed run never shows up."""
    grave = runs_dir() / f".removed-{run_id}-{time.time_ns()}"
    (runs_dir() / run_id).rename(grave)
    with suppress(FileNotFoundError):  # `ftl gc` of another shell has found the grave
        shutil.rmtree(grave)
