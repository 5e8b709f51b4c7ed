"""What a run was launched with, for a computer that did not launch it: from one of the run's stores."""

import tempfile
from pathlib import Path

from ftl import bundletar
from ftl.contract import BUNDLE_TAR
from ftl.errors import FtlError, Problem, RunError
from ftl.jobs import RunRecord
from ftl.runstores import stores_in, stores_of
from ftl.state import make_private


def bring_bundle(record: RunRecord) -> None:
    """Have the bundle of the run on this machine. Raises RunError where it cannot be had."""
    target = Path(record.bundle.path)
    if target.is_dir():
        return
    where = f"run {record.id}"
    told = "was launched on another computer, and what that sent is not on this one"
    if folders := [mount.name for mount in record.spec.mounts if not Path(mount.source or "/-").is_dir()]:
        raise RunError(Problem(where, f"{told}: {', '.join(folders)} was sent by itself", None, "resume it there"))
    make_private(target.parent)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetch-") as folder:
        packed = Path(folder) / BUNDLE_TAR
        try:
            is_there = stores_in(record.id, stores_of(record.spec).get("stores")).bundle(packed)
        except FtlError as error:
            raise RunError(Problem(where, f"{told}; {error}", None, "resume it there")) from error
        if not is_there:
            remedy = "resume it there; a bucket, as `checkpoints` of the cloud file, would have kept it"
            raise RunError(Problem(where, told, None, remedy))
        try:
            bundletar.unpack(packed, target, record.bundle.sha256, record.spec.mounts)
        except (ValueError, OSError) as error:
            if not target.is_dir():  # otherwise another shell was faster
                raise RunError(Problem(where, f"{told}; {BUNDLE_TAR} in its store: {error}")) from error
