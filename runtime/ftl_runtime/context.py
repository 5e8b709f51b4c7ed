"""What a training needs to know besides its config: the job, its directories, its machine, and whom to tell."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ftl.contract import BUNDLE_SCHEME, MOUNT_SCHEME, JobSpec, Paths
from ftl.errors import ConfigError
from ftl_runtime.checkpoint.store import CheckpointStore
from ftl_runtime.stop import StopFlag

if TYPE_CHECKING:  # it is built on ranks, and they on this
    from ftl_runtime.mesh import Mesh

Emit = Callable[[str, dict[str, Any]], None]  # Any: the shape depends on the event, see ftl.contract


@dataclass(frozen=True)
class Device:
    """What this rank computes on."""

    kind: str
    """cuda or cpu."""
    has_bf16: bool
    rank: int
    num_ranks: int
    has_flash: bool = False
    """Whether it is a GPU that FlashAttention runs on: compute capability 8.0."""
    is_hopper: bool = False
    """Whether it is a GPU that FlashAttention 3 runs on: compute capability 9.0, and no other."""
    ranks_per_copy: int = 1
    """So many ranks, one after the other, work on one copy of the model and read the same rows."""

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def copy(self) -> int:
        """Which copy of the model this rank works on: it decides which rows it reads."""
        return self.rank // self.ranks_per_copy

    @property
    def num_copies(self) -> int:
        return self.num_ranks // self.ranks_per_copy


@dataclass(frozen=True)
class Context:
    job: JobSpec
    paths: Paths
    emit: Emit
    """From any thread."""
    store: CheckpointStore
    stop: StopFlag
    device: Device
    started: float
    """When the supervisor started the trainers, in seconds since the epoch."""
    mesh: "Mesh"
    """The other machines; before the ranks have met, as if there were none."""

    @property
    def run_dir(self) -> Path:
        return Path(self.paths.run)

    @property
    def cache_dir(self) -> Path:
        return Path(self.paths.cache)

    def seconds(self) -> float:
        """How long the attempt has taken so far, by a clock that may have been set meanwhile."""
        return max(time.time() - self.started, 0.0)

    def phase(self, name: str) -> None:
        self.emit("phase", {"name": name})

    def warn(self, message: str) -> None:
        self.emit("warning", {"message": message})

    def resolve(self, reference: str) -> Path:
        """The path that a `bundle:` or `mount:` reference, or a plain path, stands for here.

        Raises ConfigError for a reference that leads out of its place or to a mount the job does not have.
        """
        return resolved(reference, self.paths)

    def resolve_model(self, reference: str) -> str:
        """The same for a model or tokenizer, which may also be a Hub repository: that is left as it is."""
        if reference.startswith((BUNDLE_SCHEME, MOUNT_SCHEME)):
            return str(self.resolve(reference))
        return reference


def resolved(reference: str, paths: Paths) -> Path:
    """As Context.resolve, for who has no context yet."""
    if reference.startswith(BUNDLE_SCHEME):
        return _below(Path(paths.bundle), reference.removeprefix(BUNDLE_SCHEME), reference)
    if reference.startswith(MOUNT_SCHEME):
        name, _, rest = reference.removeprefix(MOUNT_SCHEME).partition("/")
        if name not in paths.mounts:
            raise ConfigError(f"{reference}: the job has no mount {name!r}; its mounts: {sorted(paths.mounts)}")
        return _below(Path(paths.mounts[name]), rest, reference)
    return Path(reference)


def rank_of_process() -> tuple[int, int]:
    """(rank, number of ranks), as the supervisor set them."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def rank_on_machine() -> tuple[int, int]:
    """The same among the ranks of this machine."""
    return int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _below(root: Path, relative: str, reference: str) -> Path:
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts:
        raise ConfigError(f"{reference}: leads out of its directory")
    return root / path
