"""Puts a run's output, or one of its checkpoints, where the user wants it: verified, and never over foreign files."""

import hashlib
import json
import os
import shutil
import time
import uuid
from pathlib import Path

from ftl import jobs
from ftl.backends import Backend
from ftl.contract import CHECKPOINTS_DIR, EVENTS_FILE, MANIFEST_FILE, OUTPUT_DIR
from ftl.errors import DeliveryError, Problem, RunError
from ftl.jobs import RunRecord
from ftl.launch import Tail, result


def check_destination(dest: Path, config_key: str) -> Problem | None:
    """Why the output could not be put there, if it could not: known before training, not after it."""
    if dest.is_dir() and any(dest.iterdir()) and not _is_ours(dest):
        return Problem(
            config_key, str(dest), "is a directory with files that ftl did not write", "give another path, or empty it"
        )
    if dest.exists() and not dest.is_dir():
        return Problem(config_key, str(dest), "is a file", "give a directory")
    parent = next(path for path in dest.absolute().parents if path.exists())
    if not os.access(parent, os.W_OK | os.X_OK):
        return Problem(config_key, str(dest), f"{parent} may not be written", "give another path")
    return None


def output(record: RunRecord, backend: Backend, dest: Path) -> Path:
    """Copy the finished model to `dest`; an earlier delivery there is replaced as a whole.

    Raises RunError when there is no result yet, DeliveryError when `dest` cannot take it.
    """
    if result(record, backend) is None:
        step = newest_checkpoint(record, backend)
        remedy = f"--checkpoint takes the one of step {step}" if step is not None else None
        raise RunError(Problem(f"run {record.id}", None, "has no finished model yet", remedy))
    return _copy(record, backend, OUTPUT_DIR, dest)


def checkpoint(record: RunRecord, backend: Backend, dest: Path) -> Path:
    """Copy the newest verified checkpoint to `dest`. Raises as `output`."""
    step = newest_checkpoint(record, backend)
    if step is None:
        raise RunError(Problem(f"run {record.id}", None, "has no verified checkpoint yet"))
    return _copy(record, backend, f"{CHECKPOINTS_DIR}/checkpoint-{step}", dest)


def newest_checkpoint(record: RunRecord, backend: Backend) -> int | None:
    """Step of the newest checkpoint that was verified, None when there is none."""
    step = None
    for event in Tail(EVENTS_FILE).events(record, backend):
        if event.event == "checkpoint" and event.data.get("state") == "verified":
            step = max(step or 0, int(event.data["step"]))
    return step


def _copy(record: RunRecord, backend: Backend, name: str, dest: Path) -> Path:
    problem = check_destination(dest, "destination")
    if problem is not None:
        raise DeliveryError(problem)
    assert record.handle is not None, "there is a result, so there was an attempt"
    stage = dest.with_name(f".{dest.name}-{uuid.uuid4().hex[:8]}")
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        backend.fetch(record.handle, name, stage)
        verify(stage)
        _name_base(stage, record.base_model)
        _swap(stage, dest)
    except OSError as error:
        where = Problem(
            str(dest),
            _reason(error),
            f"the model is safe in run {record.id}",
            "`ftl pull` copies it again",
        )
        raise DeliveryError(where) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    jobs.update(record.id, delivered_at=time.time())
    return dest


def _reason(error: OSError) -> str:
    """What the system said; of a copy of many files, about the first one."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        _, target, said = error.args[0][0]
        return f"{Path(target).name}: {said}"
    return error.strerror or str(error)


def verify(directory: Path) -> None:
    """Compare every file with the directory's manifest. Raises DeliveryError naming the first that differs."""
    try:
        files = json.loads((directory / MANIFEST_FILE).read_bytes())["files"]
    except (OSError, ValueError, KeyError) as error:
        raise DeliveryError(
            Problem(str(directory / MANIFEST_FILE), str(error), "a copy must have its manifest")
        ) from error
    for name, expected in files.items():
        path = directory / name
        if not path.resolve().is_relative_to(directory.resolve()) or not path.is_file():
            raise DeliveryError(Problem(str(path), None, "is missing from the copy"))
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected["sha256"]:
                raise DeliveryError(Problem(str(path), None, "differs from what the run wrote"))


def _name_base(directory: Path, base: str | None) -> None:
    """Let an adapter name its base as this machine knows it; inside the job it stood somewhere else."""
    path = directory / "adapter_config.json"
    if base is None or not path.exists():
        return
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base}, indent=2))
    content = path.read_bytes()
    manifest = json.loads((directory / MANIFEST_FILE).read_bytes())
    manifest["files"][path.name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (directory / MANIFEST_FILE).write_text(json.dumps(manifest, indent=1))


def _is_ours(directory: Path) -> bool:
    """Whether all files below were delivered by ftl: each is in the manifest, or in that of a directory of its own,
    as output_dir/merged."""
    manifests = [path for path in directory.rglob(MANIFEST_FILE) if path.is_file()]
    listed = {path.relative_to(directory) for path in manifests}
    for manifest in manifests:
        try:
            names = json.loads(manifest.read_bytes())["files"]
            listed |= {manifest.parent.relative_to(directory) / name for name in names}
        except (OSError, ValueError, KeyError, TypeError):
            return False
    return {path.relative_to(directory) for path in directory.rglob("*") if path.is_file()} <= listed


def _swap(stage: Path, dest: Path) -> None:
    """Put `stage` in the place of `dest`. The old one is set aside first and removed last."""
    if not dest.exists():
        stage.rename(dest)
        return
    aside = dest.with_name(f".{dest.name}-old-{uuid.uuid4().hex[:8]}")
    dest.rename(aside)
    stage.rename(dest)
    shutil.rmtree(aside)
