"""Runs that other machines launched, as a provider keeps them: told of, and known here from then on."""

from pathlib import Path

from pydantic import ValidationError

from ftl import jobs
from ftl.backends import Backend
from ftl.cloudfile import load_cloud
from ftl.errors import Problem, RunError
from ftl.jobs import RunRecord
from ftl.state import state_dir


def found(backend: Backend) -> list[RunRecord]:
    """The runs of a cloud, newest first, each as this machine knows it where it knows more."""
    records = []
    for given in backend.records():
        try:
            records.append(_merged(RunRecord.model_validate(given)))
        except ValidationError:
            continue  # of a newer ftl; whoever launched it can read it
    return sorted(records, key=lambda record: record.created_at, reverse=True)


def bring(prefix: str | None, cloud: Path | None) -> str | None:
    """What to look for among the runs of this machine: `prefix`, whose record was fetched from the cloud where that
    is given and does not only name where to go. Raises RunError unless the cloud has exactly one such run."""
    if cloud is None:
        return prefix
    backend = load_cloud(cloud)
    matches = [record for record in found(backend) if prefix is None or record.id.startswith(prefix)]
    if prefix is None:
        matches = matches[:1]
    exact = [record for record in matches if record.id == prefix]
    if len(exact or matches) != 1:
        told = f"begins {len(matches)} ids" if matches else f"is not known to {cloud}"
        raise RunError(Problem(f"run {prefix or ''!r}", None, told, f"`ftl ps --cloud {cloud}` lists its runs"))
    (record,) = exact or matches
    jobs.save(record)
    return record.id


def _merged(given: RunRecord) -> RunRecord:
    """The record with this machine's own paths, and whichever attempts are further."""
    if jobs.is_known(given.id):
        own = jobs.load(given.id)
        newer = given.attempts[len(own.attempts) :]  # of the others this machine may know more
        return own.model_copy(update={"attempts": (*own.attempts, *newer), "spec": given.spec} if newer else {})
    place = state_dir() / "bundles" / given.bundle.sha256
    bundle = given.bundle.model_copy(update={"path": str(place)})
    output_dir = str(Path(given.output_dir).absolute())
    return given.model_copy(update={"output_dir": output_dir, "bundle": bundle})
