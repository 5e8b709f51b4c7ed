"""ftl train: check everything here, then submit and follow."""

from pathlib import Path

from ftl import jobs, launch
from ftl.backends import Backend
from ftl.bundle import Packed
from ftl.cloudfile import NO_LIMITS, Limits, load_cloud
from ftl.commands import costs, show
from ftl.commands.overrides import read_overrides
from ftl.commands.prepare import Preparation, name_of
from ftl.config.load import load_train
from ftl.errors import BackendError, ExitCode, FtlError, UncertainError
from ftl.garbage import save_with_bundle
from ftl.jobs import RunRecord

OPTIONS = ("--cloud", "--set", "--sweep", "--max-usd", "--deadline", "--detach", "--dry-run", "--json")


def run(
    config: Path,
    *,
    flags: list[str],
    assignments: list[str],
    cloud: Path | None,
    detach: bool,
    dry_run: bool,
    as_json: bool,
    limits: Limits = NO_LIMITS,
) -> int:
    """Check, submit and follow one training; the exit code of its outcome."""
    loaded = load_train(config, read_overrides(flags, assignments, OPTIONS))
    backend = load_cloud(cloud, limits)
    prepared = Preparation(backend).prepare(loaded)
    spec = prepared.spec(backend, jobs.new_id(name_of(loaded.path)))
    problems = backend.preflight(spec)
    for note in prepared.notes:
        show.note(note, as_json=as_json)
    if problems and not dry_run:
        raise BackendError(*problems)
    costs.tell_before(spec, backend, as_json=as_json)
    if dry_run:
        request = backend.describe(spec, prepared.packed.bundle, jobs.runs_dir() / spec.run_id)
        show.dry_run(loaded, prepared.packed, request, problems, as_json=as_json)
        return ExitCode.ENVIRONMENT if problems else ExitCode.DONE
    record = start(prepared.record(backend, spec, name=name_of(loaded.path)), prepared.packed, backend)
    if detach:
        show.detached(record, as_json=as_json)
        return ExitCode.DONE
    code = show.watch(record, backend, as_json=as_json)
    costs.tell_after(jobs.load(record.id), backend, as_json=as_json)
    return code


def limits_of(max_usd: float | None, deadline: str | None) -> Limits:
    """What --max-usd and --deadline say over the cloud file."""
    return Limits(max_usd, deadline)


def start(record: RunRecord, packed: Packed, backend: Backend) -> RunRecord:
    """Submit a run for the first time; its record, saved. A run that is refused leaves nothing behind."""
    save_with_bundle(record, packed)
    try:
        return launch.submit(record, backend)
    except UncertainError:
        raise  # it may have been accepted: its record finds it
    except FtlError:
        jobs.delete(record.id)
        raise
