"""A backend runs one JobSpec somewhere. One protocol, one file a provider; everything else is shared."""

from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from ftl.cloud import CloudSection
from ftl.contract import Bundle, JobHandle, JobSpec, JobState
from ftl.cost import Price, Spent
from ftl.errors import ConfigError, Problem

NAMES = ("local", "docker", "modal", "skypilot")
"""Built-in providers; third parties add theirs by the entry point group `ftl.backends`."""
HERE = "here"
"""The place of runs whose directory is on this machine."""


class Backend(Protocol):
    """Runs jobs of one provider. Made from the provider's CloudSection; holds no other state."""

    Cloud: ClassVar[type[CloudSection]]
    """The provider's YAML keys."""
    poll_s: ClassVar[float]
    """How often a run that is followed is looked at: what one look costs the provider decides."""

    cloud: Any  # Any: each backend has its own Cloud

    def __init__(self, cloud: Any) -> None: ...

    @property
    def recovers(self) -> bool:
        """True when the provider itself restarts preempted jobs; otherwise launch.py resubmits."""
        ...

    @property
    def place(self) -> str | None:
        """Where run directories are kept: HERE, or in its own words. What is resumed in the same place is still there.

        None where every attempt has a machine of its own.
        """
        ...

    def spec_fields(self) -> dict[str, Any]:  # Any: values of JobSpec fields
        """The JobSpec fields that this cloud section decides: image, resources. Pure."""
        ...

    def preflight(self, spec: JobSpec) -> list[Problem]:
        """All that can be known before paying; empty when the job can be submitted.

        Blocks for seconds at most. No side effects.
        """
        ...

    def describe(self, spec: JobSpec, bundle: Bundle, run_dir: Path) -> dict[str, Any]:  # Any: provider's own request
        """Exactly what `submit` would send, secrets as names. Pure; `--dry-run` prints it."""
        ...

    def submit(self, spec: JobSpec, bundle: Bundle, run_dir: Path) -> JobHandle:
        """Start the attempt and return once the provider has accepted it.

        The same (run_id, attempt) twice gives the same handle and one job. Writes job.json into `run_dir`. Where
        the job does not see `run_dir`, it begins with a copy of what `spec.carried` names there.
        Raises BackendError when the provider refuses; nothing is left running then.
        """
        ...

    def status(self, handle: JobHandle) -> JobState:
        """One request, no waiting. A job the provider has forgotten is ended with cause `lost`, not an error."""
        ...

    def read(self, handle: JobHandle, name: str, offset: int) -> bytes:
        """The bytes of a file of the run directory from `offset` on; empty when there is nothing new (or no file yet).

        One request, no waiting, works from another process tomorrow. Events, logs and results are all read by it.
        """
        ...

    def cancel(self, handle: JobHandle, *, now: bool = False) -> None:
        """Ask the attempt to save and stop, or with `now` kill it. Idempotent; does not wait for the end."""
        ...

    def fetch(self, handle: JobHandle, name: str, dest: Path) -> None:
        """Copy the file or directory `name` of the run directory to `dest`, which does not exist yet.

        Raises FileNotFoundError where there is no such thing, BackendError where nobody can tell.
        """
        ...

    def remove(self, handle: JobHandle) -> None:
        """Forget the attempt at the provider (container, secrets). Idempotent; the run directory is not touched."""
        ...

    def erase(self, handle: JobHandle) -> None:
        """Remove the run's files where they are kept by the provider, after `remove`. Idempotent."""
        ...

    def records(self) -> list[dict[str, Any]]:  # Any: JSON of jobs.RunRecord
        """The records of runs that the provider keeps, whoever launched them; none where this machine alone knows."""
        ...

    def collect(self) -> list[str]:
        """Give back what the provider keeps for runs that do not need it; a sentence about each thing."""
        ...


@runtime_checkable
class Rents(Protocol):
    """A backend whose machines cost money by the hour."""

    def price(self, spec: JobSpec) -> Price | None:
        """What the machines cost; None where nobody can say before they are rented. Blocks for seconds at most."""
        ...

    def spent(self, handle: JobHandle) -> Spent | None:
        """What an attempt has cost that has ended; None where that is not known."""
        ...


@runtime_checkable
class KeepsBundles(Protocol):
    """A backend that keeps what was sent to a run, so that any machine can start its next attempt."""

    keeps_bundles: ClassVar[bool]


def load(provider: str) -> type[Backend]:
    """The backend class of that name.

    Raises ConfigError for an unknown name. A missing SDK is not its business: preflight reports it.
    """
    if provider in NAMES:
        backend: type[Backend] = import_module(f"ftl.backends.{provider}").BACKEND
        return backend
    found = entry_points(group="ftl.backends", name=provider)
    for entry in found:
        third_party: type[Backend] = entry.load()
        return third_party
    known = ", ".join([*NAMES, *sorted(e.name for e in entry_points(group="ftl.backends"))])
    raise ConfigError(Problem("provider", repr(provider), f"must be one of {known}"))
