"""ftl gc: give back what runs that have ended no longer need, here and in clouds."""

import json
import shutil
from pathlib import Path

from ftl import garbage, jobs
from ftl.backends import Backend
from ftl.cloudfile import load_cloud
from ftl.commands import show
from ftl.errors import ExitCode, FtlError
from ftl.launch import backend_of
from ftl.state import state_dir


def run(*, cloud: Path | None, as_json: bool) -> int:
    """Clean this machine, and the cloud of the file, else every cloud that a run of this machine was in."""
    failed = False
    for name, backend in (_clouds() if cloud is None else {str(cloud): load_cloud(cloud)}).items():
        try:
            for sentence in backend.collect():
                show.note(f"{name}: {sentence}", as_json=as_json)
        except FtlError as error:
            failed = True
            show.note(f"{name} could not be cleaned: {error}", as_json=as_json)
    for sentence in _clean_here():
        show.note(f"here: {sentence}", as_json=as_json)
    return ExitCode.ENVIRONMENT if failed else ExitCode.DONE


def _clouds() -> dict[str, Backend]:
    """One backend for each place that runs of this machine are kept in."""
    found: dict[str, tuple[str, Backend]] = {}
    for record in jobs.all_records():
        places = {key: record.cloud.get(key) for key in ("volume", "cache_volume", "environment")}
        found.setdefault(json.dumps([record.provider, places]), (record.provider, backend_of(record)))
    return {f"{name} ({key})" if len(found) > 1 else name: backend for key, (name, backend) in found.items()}


def _clean_here() -> list[str]:
    """Bundles without a run, and run directories whose removal was broken off."""
    told = []
    before = _size(state_dir())
    garbage.collect_garbage()
    for grave in jobs.runs_dir().glob(".removed-*"):
        shutil.rmtree(grave, ignore_errors=True)
        told.append(f"{grave.name.removeprefix('.removed-')} removed: it was left half removed")
    freed = before - _size(state_dir())
    if freed > 0:
        told.append(f"{freed / 2**20:.1f} MiB of bundles removed: no run needs them")
    return told


def _size(state: Path) -> int:
    blobs = state / "blobs"
    return sum(path.stat().st_size for path in blobs.glob("??/*")) if blobs.exists() else 0
