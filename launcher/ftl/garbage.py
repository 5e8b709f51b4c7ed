"""Bundles that no run needs, and how a launcher keeps its own from being taken for one of them."""

import fcntl
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ftl import bundle, jobs
from ftl.bundle import Packed
from ftl.jobs import RunRecord
from ftl.state import make_private, state_dir

_GRAVE = ".removed-"


def save_with_bundle(record: RunRecord, packed: Packed) -> None:
    """Put the bundle of a run on disk and save the record that names it; `collect_garbage` sees both or neither.

    Raises StorageError when there is no room or no access.
    """
    bundle.write(packed)  # may take minutes, and nobody has to wait for it
    with _locked(fcntl.LOCK_SH):
        bundle.write(packed)  # once more: another shell may have removed it meanwhile
        jobs.save(record)


def collect_garbage() -> None:
    """Remove every bundle that no record names, and the blobs that no bundle holds any more."""
    with _locked(fcntl.LOCK_EX):
        needed = jobs.bundles_needed()
        bundles = state_dir() / "bundles"
        for directory in bundles.iterdir() if bundles.exists() else ():
            if directory.name.startswith(_GRAVE):
                shutil.rmtree(directory, ignore_errors=True)
            elif directory.name not in needed and not directory.name.startswith("."):
                # Renamed first: whoever finds a bundle under its name takes it to be whole.
                grave = directory.rename(bundles / f"{_GRAVE}{directory.name[:12]}-{uuid.uuid4().hex}")
                shutil.rmtree(grave, ignore_errors=True)
        blobs = state_dir() / "blobs"
        for blob in blobs.glob("??/*") if blobs.exists() else ():
            with suppress(FileNotFoundError):  # a launcher that is copying is done with it
                if blob.stat().st_nlink == 1:
                    blob.unlink()


@contextmanager
def _locked(operation: int) -> Iterator[None]:
    """Launchers share the lock, whoever removes has it alone. Blocks until it is had."""
    with (make_private(state_dir()) / "bundles.lock").open("w+") as lock:  # NFS lets share only what can be read
        fcntl.flock(lock, operation)
        yield
