"""Checkpoints in a directory: a local disk, a bind mount, a volume.

    .tmp-<step>-<uuid>/     being written; worth nothing, removed at the next start
    checkpoint-<step>/      whole: renamed here after its manifest and every byte were synced
    quarantine/             whole once, broken now; kept for whoever wants to look

The protocol and the faults it answers: a writer killed anywhere, files truncated, flipped or missing, a full disk.
Imported before torch, so it must stay light.
"""

import contextlib
import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ftl.contract import CHECKPOINTS_DIR, MANIFEST_FILE
from ftl.errors import StorageError
from ftl_runtime.checkpoint import manifest
from ftl_runtime.checkpoint.manifest import BrokenCheckpoint
from ftl_runtime.checkpoint.store import Checkpoint

_NAME = re.compile(r"checkpoint-(\d+)")
_QUARANTINE = "quarantine"
_FULL_BELOW_BYTES = 1 << 20

Emit = Callable[[str, dict[str, Any]], None]  # Any: the shape depends on the event, see ftl.contract


class VolumeStore:
    """The CheckpointStore of a directory."""

    def __init__(self, root: Path, run_id: str, emit: Emit) -> None:
        self._root = root
        self._run_id = run_id
        self._emit = emit
        with storage_errors(root):
            root.mkdir(parents=True, exist_ok=True)

    def stage(self, step: int) -> Path:
        stage = self._root / f".tmp-{step}-{uuid.uuid4().hex[:12]}"
        with storage_errors(self._root):
            stage.mkdir()
        return stage

    def discard(self, stage: Path) -> None:
        shutil.rmtree(stage, ignore_errors=True)

    def commit(self, stage: Path, step: int) -> Checkpoint:
        final = self._root / f"checkpoint-{step}"
        checkpoint = Checkpoint(step, final)
        if final.exists():
            try:
                manifest.check(final, run_id=self._run_id, step=step)
            except BrokenCheckpoint as broken:
                self._quarantine(checkpoint, str(broken))
            else:
                self.discard(stage)
                return checkpoint
        with storage_errors(self._root):
            manifest.seal(stage, run_id=self._run_id, step=step)
            stage.rename(final)
            manifest.sync_directory(self._root)
        return checkpoint

    def adopt(self, stage: Path, step: int) -> Checkpoint:
        """Publish a stage that came from another store with its manifest.

        Raises BrokenCheckpoint when it is not what the manifest says, or of another run; the stage is left then.
        """
        manifest.check(stage, run_id=self._run_id, step=step)
        final = self._root / f"checkpoint-{step}"
        with storage_errors(self._root):
            if final.exists():
                self._quarantine(Checkpoint(step, final), "it was replaced by the copy of another store")
            stage.rename(final)
            manifest.sync_directory(self._root)
        return Checkpoint(step, final)

    def verify(self, checkpoint: Checkpoint) -> int:
        return manifest.check(checkpoint.path, run_id=self._run_id, step=checkpoint.step)

    def latest_valid(self) -> Checkpoint | None:
        for leftover in self._root.glob(".tmp-*"):
            self.discard(leftover)
        for checkpoint in reversed(listed(self._root)):
            try:
                self.verify(checkpoint)
            except BrokenCheckpoint as broken:
                self._quarantine(checkpoint, str(broken))
            else:
                return checkpoint
        return None

    def valid(self, step: int) -> Checkpoint | None:
        checkpoint = Checkpoint(step, self._root / f"checkpoint-{step}")
        try:
            self.verify(checkpoint)
        except BrokenCheckpoint:
            return None
        return checkpoint

    def prune(self, keep: int, newest: Checkpoint, best_step: int | None) -> None:
        for checkpoint in listed(self._root)[:-keep]:
            if checkpoint.step < newest.step and checkpoint.step != best_step:
                # Under its own name a half-deleted directory would look like a broken checkpoint.
                doomed = self._root / f".tmp-{checkpoint.step}-{uuid.uuid4().hex[:12]}"
                with storage_errors(self._root):
                    checkpoint.path.rename(doomed)
                self.discard(doomed)

    def _quarantine(self, checkpoint: Checkpoint, reason: str) -> None:
        target = self._root / _QUARANTINE / f"{checkpoint.path.name}-{uuid.uuid4().hex[:8]}"
        with storage_errors(self._root):
            target.parent.mkdir(exist_ok=True)
            checkpoint.path.rename(target)
            manifest.sync_directory(target.parent)
            manifest.sync_directory(self._root)
        below = f"{CHECKPOINTS_DIR}/{_QUARANTINE}/{target.name}"
        self._emit("checkpoint", {"step": checkpoint.step, "path": below, "state": "quarantined"})
        self._emit("warning", {"message": f"{checkpoint.path.name} is broken and was set aside in {below}: {reason}"})


def newest_step(root: Path) -> int | None:
    """The newest step that has a whole checkpoint by name, without reading its bytes; None when there is none."""
    whole = [checkpoint.step for checkpoint in listed(root) if (checkpoint.path / MANIFEST_FILE).is_file()]
    return whole[-1] if whole else None


@contextlib.contextmanager
def storage_errors(root: Path) -> Iterator[None]:
    """Turns a failed write below `root` into a StorageError that names the path; other errors pass."""
    try:
        with room_errors(root):
            yield
    except StorageError:
        raise
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO):
            raise StorageError(f"{error.filename or root}: cannot be written: {error.strerror}") from error
        raise


@contextlib.contextmanager
def room_errors(root: Path) -> Iterator[None]:
    """The same for a full disk alone, where other errors may be somebody else's.

    torch and safetensors report a full disk as errors of their own without an errno, so a disk that is full while any
    exception passes is taken as its cause.
    """
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error) or _is_full(root):
            raise StorageError(f"{root}: the disk is full; free some space, then resume") from error
        raise


def _is_full(root: Path) -> bool:
    try:
        status = os.statvfs(root)
    except OSError:
        return False
    return status.f_bavail * status.f_frsize < _FULL_BELOW_BYTES


def listed(root: Path) -> list[Checkpoint]:
    """Directories named like checkpoints, oldest first."""
    if not root.is_dir():
        return []
    matches = [(_NAME.fullmatch(path.name), path) for path in root.iterdir() if path.is_dir() or path.is_symlink()]
    return sorted((Checkpoint(int(m[1]), path) for m, path in matches if m), key=lambda checkpoint: checkpoint.step)
