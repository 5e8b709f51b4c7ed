"""All that Modal is asked for, worked out before it is asked: (job, cloud section, bundle) -> ModalPlan. Pure.

app ftl-<run>          deployed once a run; its functions are called by .spawn()
  prepare              no GPU: tokens and the model into the cache volume, then calls train
  train                the task itself; calls itself again when its day is over
volume `ftl`           runs/<run>/record.json, job-<n>.json, stop-<n>   written by launchers
                       runs/<run>/chain.json, verdict.json, spent.json, run/   written by containers
                       bundles/<sha256>.tar, .json                      what is sent, once a content
volume `ftl-cache`     hf/, torch/, mounts/<name>/, and tokens in a directory each, named by what decides them
"""

from typing import Any

from ftl.backends.modal_cloud import DAY_S, ModalCloud
from ftl.backends.modal_image import BUILDER_VERSION, ImagePlan, plan_image
from ftl.backends.modal_prices import price
from ftl.contract import Bundle, JobSpec, Paths
from ftl.cost import Price
from ftl.section import Section

STATE_MOUNT, CACHE_MOUNT = "/ftl/state", "/ftl/cache"
WITHOUT_GPU = "a machine without GPU"
ENTRY_MODULE = "modal_entry"
_PREPARE_CPUS, _PREPARE_MEMORY_GIB = 4.0, 16.0
_ON_CPU = ("preprocess", "merge", "merge-shards")
_MIB = 1024


class FunctionPlan(Section):
    """One function of the app, as `app.function` takes it."""

    name: str
    gpu: tuple[str, ...] = ()
    """In order of preference."""
    cpu: float | None = None
    memory_mib: int | None = None
    disk_mib: int | None = None
    timeout_s: int
    startup_timeout_s: int
    retries: int
    max_containers: int
    """As many as one call needs, so that a call that was made twice waits for the first, and then finds it done."""
    nodes: int = 1
    rdma: bool = False
    regions: tuple[str, ...] = ()
    cloud: str | None = None


class SecretPlan(Section):
    """A secret on Modal, or variables of this shell under no name."""

    name: str | None = None
    keys: tuple[str, ...] = ()


class ModalPlan(Section):
    """A submission, whole: secrets as names, local files by their place."""

    app: str
    environment: str | None
    tags: dict[str, str]
    builder_version: str
    image: ImagePlan
    functions: tuple[FunctionPlan, ...]
    """In the order in which they are called."""
    volumes: dict[str, str]
    """Mount -> name. All are version 2 where ftl makes them."""
    secrets: tuple[SecretPlan, ...]
    mounts: dict[str, str]
    """Place on the cache volume -> directory of this machine that is copied there."""
    order: dict[str, Any]  # Any: JSON
    """What the first function is called with."""
    job: JobSpec
    """job-<n>.json on the volume."""


def plan(spec: JobSpec, cloud: ModalCloud, bundle: Bundle) -> ModalPlan:
    """What `submit` does. No clock, no environment, nobody is asked."""
    is_on_cpu = spec.task in _ON_CPU or not cloud.gpu
    has_stage_before = spec.task == "train" and not is_on_cpu and cloud.prepare
    functions = ((_prepare(cloud),) if has_stage_before else ()) + (_main(cloud, is_on_cpu=is_on_cpu),)
    mounts = {f"mounts/{mount.name}": mount.source for mount in spec.mounts}
    own = (SecretPlan(keys=spec.secrets),) if spec.secrets else ()
    return ModalPlan(
        app=app_name(spec.run_id),
        environment=cloud.environment,
        tags={"ftl-run": spec.run_id[:63]},
        builder_version=BUILDER_VERSION,
        image=plan_image(
            spec.image or image_of(cloud),
            cloud.dockerfile_commands,
            cloud.registry_secret,
        ),
        functions=functions,
        volumes={
            STATE_MOUNT: cloud.volume,
            CACHE_MOUNT: cloud.cache_volume,
            **{one.mount: one.name for one in cloud.volumes},
        },
        secrets=(*own, *(SecretPlan(name=one.name, keys=one.keys) for one in cloud.modal_secrets)),
        mounts=mounts,
        order={
            "app": app_name(spec.run_id),
            "run_id": spec.run_id,
            "submission": spec.attempt,
            "generation": 0,
            "bundle": bundle.sha256,
            "environment": cloud.environment,
            "volume": cloud.volume,
            "commits": [cloud.cache_volume, *(one.name for one in cloud.volumes)],
            "nodes": functions[-1].nodes,
            "stages": [function.name for function in functions],
            "limits_s": {function.name: function.timeout_s for function in functions},
            "max_usd": cloud.max_usd,
            "usd_per_hour": {
                one.name: round(price(one, machine(one), cloud).most_usd_per_hour, 4) for one in functions
            },
        },
        job=_job(spec, is_on_cpu=is_on_cpu),
    )


def app_name(run_id: str) -> str:
    """The deployed app of a run; Modal's names have less than 64 letters."""
    return f"ftl-{run_id}"[:63].rstrip("-")


def image_of(cloud: ModalCloud) -> str:
    return cloud.image or ("cuda" if cloud.gpu else "cpu")


def machine(function: FunctionPlan) -> str:
    """What it runs on: `H100:8 or A100-80GB:8`."""
    gpus = " or ".join(function.gpu) or WITHOUT_GPU
    return f"{function.nodes} x {gpus}" if function.nodes > 1 else gpus


def price_of(function: FunctionPlan, cloud: ModalCloud) -> Price:
    return price(function, machine(function), cloud)


def run_root(run_id: str) -> str:
    """The place of a run on the state volume."""
    return f"runs/{run_id}"


def _job(spec: JobSpec, *, is_on_cpu: bool) -> JobSpec:
    """The job as containers find it; where run directory and bundle are, each container fills in."""
    paths = Paths(
        bundle="",
        run="",
        cache=CACHE_MOUNT,
        mounts={mount.name: f"{CACHE_MOUNT}/mounts/{mount.name}" for mount in spec.mounts},
    )
    mounts = tuple(mount.model_copy(update={"source": ""}) for mount in spec.mounts)
    gpus = spec.resources.model_copy(update={"gpus": 0, "gpu_kind": None}) if is_on_cpu else spec.resources
    return spec.model_copy(update={"restarts": True, "paths": paths, "mounts": mounts, "resources": gpus})


def _main(cloud: ModalCloud, *, is_on_cpu: bool) -> FunctionPlan:
    nodes = 1 if is_on_cpu else cloud.nodes
    return FunctionPlan(
        name="train",
        gpu=() if is_on_cpu else cloud.gpu_strings,
        cpu=cloud.cpus or (_PREPARE_CPUS if is_on_cpu else None),
        memory_mib=_mib(cloud.memory or (_PREPARE_MEMORY_GIB if is_on_cpu else None)),
        disk_mib=_mib(cloud.disk),
        timeout_s=min(cloud.attempt_timeout, DAY_S),
        startup_timeout_s=cloud.startup_timeout,
        retries=cloud.retries,
        max_containers=nodes,
        nodes=nodes,
        rdma=cloud.rdma and nodes > 1,
        regions=cloud.regions,
        cloud=cloud.cloud,
    )


def _prepare(cloud: ModalCloud) -> FunctionPlan:
    return FunctionPlan(
        name="prepare",
        cpu=_PREPARE_CPUS,
        memory_mib=_mib(cloud.memory_preprocess or cloud.memory or _PREPARE_MEMORY_GIB),
        disk_mib=_mib(cloud.disk),
        timeout_s=cloud.timeout_preprocess,
        startup_timeout_s=cloud.startup_timeout,
        retries=cloud.retries,
        max_containers=1,
        regions=cloud.regions,
        cloud=cloud.cloud,
    )


def _mib(gib: float | None) -> int | None:
    return None if gib is None else round(gib * _MIB)
