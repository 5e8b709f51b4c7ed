"""What a store outside the run directory must do; each kind is one file next to this one.

A run has its own place there, RUN/ below the store's address:

    owner.json              who writes: the attempt that came last
    checkpoint-<step>/      whole once its manifest.json is there
    bundle.tar              what the run was launched with, not in a repository of the Hub
"""

import json
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ftl.contract import HubRef, StoreRef
from ftl.errors import BackendError, StorageError
from ftl.sources.retry import PassingError
from ftl_runtime.checkpoint.store import Checkpoint

if TYPE_CHECKING:
    from ftl_runtime.checkpoint.bandwidth import Rate

OWNER_FILE = "owner.json"
BUNDLE_STAGE = ".bundle-"
"""How the directories begin that bundle.tar is made in."""
_GIB = 2**30
Told = Callable[[int, int], None]
"""Takes the bytes that have come over so far, and those of all."""


class SupersededError(BackendError):
    """A later attempt of the same run writes to the store: this one must stop, and not be started again."""


def owner_of(content: bytes | None) -> str | None:
    """Who writes, as OWNER_FILE says; None where there is none.

    Raises PassingError for what is no such file: a page of a proxy must not look like another attempt.
    """
    if content is None:
        return None
    try:
        owner = json.loads(content)["owner"]
    except (ValueError, LookupError, TypeError) as error:
        raise PassingError(f"{OWNER_FILE} cannot be read") from error
    return str(owner)


class RemoteStore(Protocol):
    """The checkpoints of one run in one place. Every call may fail with UnreachableError or ConfigError, changes
    nothing half, and may be repeated."""

    label: str
    """Its address for people, without what may be secret."""

    def claim(self, owner: str) -> None:
        """Become the one writer: whoever was it before finds out at its next `put`."""
        ...

    def steps(self) -> list[int]:
        """The steps whose checkpoints look whole, oldest first; one listing, no content is read."""
        ...

    def put(self, checkpoint: Checkpoint, drop: Collection[int], told: Told) -> None:
        """Copy a checkpoint there and compare what has arrived with its manifest; then drop those of older steps.

        Raises SupersededError, and BrokenCheckpoint when the copy here is not what its manifest says.
        """
        ...

    def fetch(self, step: int, dest: Path, told: Told) -> None:
        """Copy the files that the manifest of a step lists, and it, into the empty directory `dest`.

        Raises BrokenCheckpoint where the manifest is missing or cannot be believed, or a file has another size, before
        anything is copied; contents are not compared. Raises StorageError without room for them.
        """
        ...

    def quarantine(self, step: int) -> None:
        """Have a checkpoint whose content is broken believed by nobody; its files stay."""
        ...

    def deliver(self, directory: Path, told: Told) -> str | None:
        """Put the finished model there and compare it with its manifest; the commit, where there is one.

        Raises as `put`.
        """
        ...

    def keep_bundle(self, directory: Path, scratch: Path) -> None:
        """Put the bundle there, as one file made below `scratch`, unless it is there: with it the run can go on from a
        computer that did not launch it. Nothing where others may come to read the user's data.

        Raises SupersededError, and OSError where `scratch` has no room.
        """
        ...


def check_room(dest: Path, num_bytes: int) -> None:
    """Raises StorageError where so much does not fit beside what is there."""
    free = shutil.disk_usage(dest).free
    if num_bytes > free:
        raise StorageError(
            f"{dest.parent}: {free / _GIB:.1f} GiB free, and the checkpoint takes {num_bytes / _GIB:.1f} GiB; free "
            "some space, then resume"
        )


def open_store(ref: StoreRef, run_id: str, rate: "Rate | None" = None) -> RemoteStore:
    """The store of a reference. Asks nobody yet. `rate` is that of copies to a directory."""
    if isinstance(ref, HubRef):
        from ftl_runtime.checkpoint.hub import HubStore

        return HubStore(ref, run_id)
    from ftl_runtime.checkpoint.bucket import BucketStore

    return BucketStore(ref, run_id, rate)
