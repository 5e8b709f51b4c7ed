"""What a cloud file asks for, whichever provider it was written for: a job for one machine with an image."""

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from ftl.backends.docker import DockerCloud
from ftl.backends.skypilot_cloud import SkypilotCloud
from ftl.cloud import CloudSection, RentedCloud
from ftl.contract import (
    BUNDLE_CODE,
    CONTAINER_BUNDLE,
    CONTAINER_CACHE,
    CONTAINER_MOUNTS,
    CONTAINER_RUN,
    JOB_FILE,
    Bundle,
    JobSpec,
    Paths,
)
from ftl.errors import ConfigError, Problem
from ftl.image import resolve


@dataclass(frozen=True)
class Asked:
    spec: JobSpec
    bundle: Bundle
    image: str
    """repository@digest."""
    gpu_kinds: tuple[str, ...]
    """In order of preference; empty where any will do."""
    num_gpus: int | None
    """None: all that the machine has."""
    cpus: float | None
    memory_gib: float | None
    disk_gib: int | None
    spot: Literal["spot", "auto", "on-demand"]
    max_attempts: int
    max_usd_per_hour: float | None
    left_out: tuple[str, ...]
    """Keys of the cloud file that say where, when and for how much its own provider is to run it."""

    def without(self, *keys: str) -> str:
        """A comment that names what is left out, but for these; empty where it is nothing."""
        names = ", ".join(key for key in self.left_out if key not in keys)
        return f"# The cloud file's {names} cannot be said here.\n" if names else ""

    @property
    def name(self) -> str:
        return re.sub(r"[^a-z0-9-]", "-", f"ftl-{self.spec.run_id}")[:60].rstrip("-")

    def script(self) -> str:
        """What the container runs, with the bundle in its place."""
        paths = Paths(
            bundle=CONTAINER_BUNDLE,
            run=CONTAINER_RUN,
            cache=CONTAINER_CACHE,
            mounts={mount.name: f"{CONTAINER_MOUNTS}/{mount.name}" for mount in self.spec.mounts},
        )
        job = json.loads(self.spec.model_copy(update={"paths": paths}).model_dump_json())
        return "\n".join(
            (
                f"export PYTHONPATH={CONTAINER_BUNDLE}/{BUNDLE_CODE} PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1",
                f"mkdir -p {CONTAINER_RUN} {CONTAINER_CACHE}",
                f"cat > {CONTAINER_RUN}/{JOB_FILE} <<'FTL_JOB'",
                json.dumps(job, indent=1),
                "FTL_JOB",
                f"exec python -m ftl_runtime {CONTAINER_RUN}/{JOB_FILE}",
                "",
            )
        )


def asked(cloud: CloudSection, spec: JobSpec, bundle: Bundle, target: str) -> Asked:
    """The job, free of its provider. Raises ConfigError where `target` cannot have it, in one sentence."""
    if isinstance(cloud, RentedCloud) and cloud.nodes > 1:
        raise ConfigError(Problem("nodes", str(cloud.nodes), f"--to {target} is for one machine", "write `nodes: 1`"))
    if not isinstance(cloud, RentedCloud | DockerCloud) or not spec.image or spec.image == "none":
        told = f"names no image, and {target} starts nothing but containers"
        remedy = "give a cloud file with `image: repository:tag@sha256:digest`"
        raise ConfigError(Problem("--cloud", f"provider {cloud.provider}", told, remedy))
    reference = resolve(spec.image, allow_unpinned=isinstance(cloud, DockerCloud) and cloud.allow_unpinned).reference
    if reference is None or reference.startswith("sha256:"):
        remedy = f"`ftl images build {spec.image} --push REGISTRY/NAME:TAG` prints a reference to name here"
        raise ConfigError(Problem("image", spec.image, f"is not published, so {target} could not get it", remedy))
    spot: Literal["spot", "auto", "on-demand"] = "on-demand"
    if isinstance(cloud, SkypilotCloud) and cloud.spot:
        spot = "auto" if cloud.spot == "prefer" else "spot"
    gpus = spec.resources.gpus
    facts: dict[str, Any] = {"cpus": cloud.cpus, "memory_gib": cloud.memory, "max_attempts": cloud.max_attempts}
    return Asked(
        spec=spec,
        bundle=bundle,
        image=reference,
        gpu_kinds=_kinds(cloud),
        num_gpus=None if gpus == "all" else gpus if isinstance(gpus, int) else len(gpus),
        disk_gib=cloud.disk if isinstance(cloud, RentedCloud) else None,
        spot=spot,
        max_usd_per_hour=cloud.max_usd_per_hour if isinstance(cloud, SkypilotCloud) else None,
        left_out=_of_its_provider(cloud),
        **facts,
    )


def _of_its_provider(cloud: CloudSection) -> tuple[str, ...]:
    own = [key for key in type(cloud).model_fields if key not in RentedCloud.model_fields] + ["regions", "max_usd"]
    given = [key for key in own if key in cloud.model_fields_set and key != "grace"]
    return tuple(given) if isinstance(cloud, RentedCloud) else ()


def _kinds(cloud: RentedCloud | DockerCloud) -> tuple[str, ...]:
    if isinstance(cloud, RentedCloud):
        return tuple(choice.partition(":")[0] for choice in cloud.gpu)
    return (cloud.gpu_kind,) if cloud.gpu_kind else ()
