"""What a place for checkpoints must do; each kind of place is one file next to this one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint that can be read as a local directory."""

    step: int
    path: Path


class CheckpointStore(Protocol):
    """Keeps the checkpoints of one run. One writer at a time; the run's lock sees to that."""

    def stage(self, step: int) -> Path:
        """A fresh directory to write checkpoint `step` into. Nothing in it counts before `commit`."""
        ...

    def discard(self, stage: Path) -> None:
        """Remove a stage that will not be committed; never raises."""
        ...

    def commit(self, stage: Path, step: int) -> Checkpoint:
        """Publish the stage under its step, in one step that a kill cannot split.

        A valid checkpoint of that step is kept, and the stage dropped. Raises StorageError when the place is full.
        """
        ...

    def adopt(self, stage: Path, step: int) -> Checkpoint:
        """Publish a stage that came from another store with its manifest.

        Raises BrokenCheckpoint when it is not what the manifest says, or of another run; the stage is left then.
        """
        ...

    def verify(self, checkpoint: Checkpoint) -> int:
        """Read every byte back and compare it with the manifest; gives the bytes.

        Raises BrokenCheckpoint.
        """
        ...

    def valid(self, step: int) -> Checkpoint | None:
        """The checkpoint of that step, if it is there and every byte is right."""
        ...

    def latest_valid(self) -> Checkpoint | None:
        """The newest checkpoint of this run whose every byte is right.

        Broken ones are moved into quarantine and reported on the way; leftovers of killed writers are removed.
        """
        ...

    def prune(self, keep: int, newest: Checkpoint, best_step: int | None) -> None:
        """Drop all but the newest `keep` and that of `best_step`, and none that is not older than `newest`, which has
        been verified."""
        ...
