"""What is on its way to the stores: hard links to checkpoints, so that dropping one here does not break its upload.

Where the file system has no hard links the checkpoint itself is read, and given up when it is dropped meanwhile.
"""

import os
import shutil
import uuid
from pathlib import Path

from ftl.contract import CHECKPOINTS_DIR, MANIFEST_FILE
from ftl_runtime.checkpoint.store import Checkpoint
from ftl_runtime.checkpoint.volume import listed

OUTBOX_DIR = ".outbox"


class Outbox:
    """The checkpoints of one run directory, as one store is sent them."""

    def __init__(self, run_dir: Path, name: str) -> None:
        self._source = run_dir / CHECKPOINTS_DIR
        self._root = run_dir / OUTBOX_DIR / name
        shutil.rmtree(self._root, ignore_errors=True)  # links that an earlier process held

    def local_steps(self) -> list[int]:
        """The steps with a whole checkpoint in the run directory, oldest first."""
        return [found.step for found in listed(self._source) if (found.path / MANIFEST_FILE).is_file()]

    def hold(self, step: int) -> Checkpoint | None:
        """That checkpoint, to be kept until `release`; None when it is gone."""
        held = self._root / f"checkpoint-{step}"
        if held.is_dir():
            return Checkpoint(step, held)
        source = self._source / held.name
        stage = self._root / f".tmp-{uuid.uuid4().hex[:12]}"
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            shutil.copytree(source, stage, copy_function=os.link)
            stage.rename(held)
        except FileNotFoundError:
            shutil.rmtree(stage, ignore_errors=True)
            return None
        except (OSError, shutil.Error):
            shutil.rmtree(stage, ignore_errors=True)
            return Checkpoint(step, source) if (source / MANIFEST_FILE).is_file() else None
        return Checkpoint(step, held)

    def release(self, step: int) -> None:
        """It is there, or not wanted any more."""
        shutil.rmtree(self._root / f"checkpoint-{step}", ignore_errors=True)
