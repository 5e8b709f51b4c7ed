"""The cloud file of Modal: axolotl's keys as they are, ours beside them, and the server's limits before it is asked.

Modal's client takes any GPU name, timeout or size; its server then refuses the function after the image was built. So
each limit stands here. Sources: modal.com/docs/guide/gpu, /timeouts, /retries, /resources, /multi-node-clusters.
"""

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationInfo, field_validator

from ftl.cloud import EnvName, Loc, RentedCloud, Seconds, Translation
from ftl.contract import Resources
from ftl.errors import FtlError, Problem
from ftl.image import resolve
from ftl.redact import is_secret_name
from ftl.section import Section

DAY_S = 86400
MAX_CPUS, MAX_MEMORY_GIB, MIN_DISK_GIB, MAX_DISK_GIB, MAX_NODES = 64.0, 336.0, 512, 3072, 32
MAX_GPUS: dict[str, int] = {
    "T4": 8,
    "A10": 4,
    "A100-40GB": 8,
    "A100-80GB": 8,
    "L4": 8,
    "L40S": 8,
    "H100": 8,
    "H100!": 8,
    "H200": 8,
    "B200": 8,
    "B200+": 8,
    "RTX-PRO-6000": 8,
}
"""Kind -> how many one container may have, those that can compute least first. `H100!` is never given an H200 instead,
`B200+` may be a B300."""
_ALIASES = {"A100": "A100-40GB", "A10G": "A10", "RTX-PRO-6000-SERVER": "RTX-PRO-6000"}
_OWN_MOUNTS = ("/ftl", "/root", "/opt/ftl", "/tmp", "/proc", "/sys", "/dev")
_GPU_ON_MODAL = re.compile(r"([A-Za-z0-9._-]+[!+]?)(?::([1-9][0-9]*))?")

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,63}$")]


class VolumeMount(Section):
    """A volume of yours that the job sees."""

    name: Name
    mount: str
    """Absolute path in the container."""

    @field_validator("mount")
    @classmethod
    def _is_free_path(cls, value: str) -> str:
        parts = value.split("/")
        if not value.startswith("/") or len(parts) < 2 or any(p in ("", ".", "..") for p in parts[1:]):
            raise ValueError("must be an absolute path without . or .., such as /data")
        if any(value == own or value.startswith(f"{own}/") for own in _OWN_MOUNTS):
            raise ValueError(f"must not be below {', '.join(_OWN_MOUNTS)}, where the job has files of its own")
        return value


class NamedSecret(Section):
    """A secret that is kept on Modal."""

    name: Name
    keys: tuple[EnvName, ...] = ()
    """Variables that must be in it."""


def _named_secret(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _gpu_kinds(value: Any) -> Any:
    """`h100`, `H100:8` or a list of such, in order of preference, as Modal writes them."""
    if value == "none":
        return ()
    given = (value,) if isinstance(value, str) else value
    if not isinstance(given, list | tuple):
        return value
    return tuple(_gpu_kind(one) if isinstance(one, str) else one for one in given)


def _gpu_kind(given: str) -> str:
    match = _GPU_ON_MODAL.fullmatch(given.strip())
    name = match[1].upper() if match else given
    name = _ALIASES.get(name, name)
    if match is None or name not in MAX_GPUS:
        if _ALIASES.get(name.removesuffix("!"), name.removesuffix("!")) in MAX_GPUS:
            raise ValueError("only H100 may have a `!`, which keeps Modal from giving an H200 instead")
        raise ValueError(f"Modal has {', '.join(MAX_GPUS)}")
    if match[2] and int(match[2]) > MAX_GPUS[name]:
        raise ValueError(f"a container has at most {MAX_GPUS[name]} {name}")
    return f"{name}:{match[2]}" if match[2] else name


def _at_most_a_day(value: int) -> int:
    if value > DAY_S:
        raise ValueError(
            "is over the 24h that Modal gives a container; only `timeout`, of the whole run, may be longer"
        )
    return value


class ModalCloud(RentedCloud):
    provider: Literal["modal"] = "modal"
    gpu: Annotated[tuple[str, ...], BeforeValidator(_gpu_kinds)] = ()
    """A kind such as H100, how many with H100:8; several in order of preference; none when absent."""
    grace: Annotated[Seconds, Field(le=25)] = 25
    """Time between the request to stop and the kill; Modal kills 30 s after it says so."""
    nodes: Annotated[int, Field(ge=1, le=MAX_NODES)] = 1
    """Machines that train together, as a cluster."""
    rdma: bool = False
    """Give the machines of a cluster RDMA to talk by."""
    cpus: Annotated[float, Field(ge=0.125, le=MAX_CPUS)] | None = None
    """CPU cores of each machine, at least; Modal counts whole cores, not threads."""
    memory: Annotated[float, Field(ge=0.125, le=MAX_MEMORY_GIB)] | None = None
    """Main memory of each machine in GiB, at least."""
    memory_preprocess: Annotated[float, Field(ge=0.125, le=MAX_MEMORY_GIB)] | None = None
    """The same for the machine without GPU that prepares the data; `memory` when absent."""
    disk: Annotated[int, Field(ge=MIN_DISK_GIB, le=MAX_DISK_GIB)] | None = None
    """Disk of each machine in GiB, for checkpoints on their way to the volume; Modal gives 512 when absent."""
    cloud: Literal["aws", "gcp", "oci", "auto"] | None = None
    """Whose machines they are; any when absent."""
    attempt_timeout: Annotated[Seconds, Field(ge=60), AfterValidator(_at_most_a_day)] = DAY_S
    """How long one container may run, at most a day. The run then goes on in the next one, for as long as `timeout`."""
    timeout_preprocess: Annotated[Seconds, Field(ge=60, le=DAY_S)] = 3 * 3600
    """How long the data may be prepared for."""
    startup_timeout: Annotated[Seconds, Field(le=DAY_S)] = 3600
    """How long a container may take to come up: the image is large."""
    retries: Annotated[int, Field(ge=0, le=10)] = 10
    """How often a container that died is started again. Preempted ones are, always."""
    prepare: bool = True
    """Tokenise the data and fetch the model on a machine without GPU, before the GPUs are paid for."""
    usd_per_hour: Annotated[float, Field(gt=0)] | None = None
    """What the machines that train cost you by the hour, all of them, with CPU and memory; Modal's price list as ftl
    has it when absent."""
    environment: Name | None = None
    """Modal's environment; that of your Modal profile when absent."""
    volume: Name = "ftl"
    """The volume where runs are kept. Made when it is not there."""
    cache_volume: Name = "ftl-cache"
    """The volume of models, tokens and large inputs, shared by all runs."""
    volumes: tuple[VolumeMount, ...] = ()
    """More volumes for the job; made when they are not there."""
    modal_secrets: tuple[Annotated[NamedSecret, BeforeValidator(_named_secret)], ...] = ()
    """Secrets that are kept on Modal, by name, each with the variables that must be in it."""
    registry_secret: Name | None = None
    """The secret on Modal with REGISTRY_USERNAME and REGISTRY_PASSWORD for a private `image`."""
    dockerfile_commands: tuple[str, ...] = ()
    """Lines of a Dockerfile that are run on top of the image."""

    @field_validator("gpu")
    @classmethod
    def _same_number_of_each(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len({_split(one)[1] for one in value}) > 1:
            raise ValueError("must ask for as many of each kind: how a run is shared out must not depend on luck")
        return value

    @field_validator("gpu_count")
    @classmethod
    def _counts_once(cls, value: int | None, info: ValidationInfo) -> int | None:
        kinds: tuple[str, ...] = info.data.get("gpu") or ()
        told = {_split(one)[1] for one in kinds}
        if value is not None and told - {None, value}:
            raise ValueError(f"`gpu` asks for {told.pop()}: say it once")
        least = min((MAX_GPUS[_split(one)[0]] for one in kinds), default=None)
        if value is not None and least is not None and value > least:
            raise ValueError(f"a container has at most {least} of them")
        return value

    @field_validator("nodes")
    @classmethod
    def _cluster_is_of_one_kind(cls, value: int, info: ValidationInfo) -> int:
        kinds = info.data.get("gpu")
        if value > 1 and kinds is not None and len(kinds) != 1:
            raise ValueError("needs exactly one kind of GPU, the same on every machine")
        return value

    @field_validator("rdma")
    @classmethod
    def _rdma_joins_nodes(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("nodes", 1) == 1:
            raise ValueError("joins several machines: write `nodes: 2` or more, or remove it")
        return value

    @field_validator("image")
    @classmethod
    def _can_be_pulled(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            resolve(value)
        except FtlError as error:
            problem = error.problems[0]
            told = problem.allowed if isinstance(problem, Problem) and problem.allowed else str(problem)
            raise ValueError(f"{told}; repository:tag@sha256:digest pins one") from None
        if value.startswith("sha256:"):
            raise ValueError("is an image of this machine, which Modal cannot pull: give repository:tag@sha256:digest")
        return value

    @field_validator("volumes")
    @classmethod
    def _mounts_differ(cls, value: tuple[VolumeMount, ...]) -> tuple[VolumeMount, ...]:
        if len({one.mount for one in value}) < len(value) or len({one.name for one in value}) < len(value):
            raise ValueError("each volume and each mount may stand there once")
        return value

    @field_validator("cache_volume", "volumes")
    @classmethod
    def _is_another_volume(cls, value: Any, info: ValidationInfo) -> Any:  # Any: either field
        taken = {info.data.get("volume"), *([info.data.get("cache_volume")] if info.field_name == "volumes" else [])}
        names = {value} if isinstance(value, str) else {one.name for one in value}
        if names & taken:
            raise ValueError("must be another volume than those that ftl keeps runs and caches on")
        return value

    @property
    def num_gpus(self) -> int:
        """Of each machine."""
        return (_split(self.gpu[0])[1] or self.gpu_count or 1) if self.gpu else 0

    @property
    def gpu_strings(self) -> tuple[str, ...]:
        """What Modal is asked for, in order of preference: H100, or H100:8."""
        number = self.num_gpus
        return tuple(_split(one)[0] + (f":{number}" if number > 1 else "") for one in self.gpu)

    def resources(self) -> Resources:
        """What a config is checked against: of several kinds the one that can compute least."""
        kinds = sorted((_split(one)[0] for one in self.gpu), key=list(MAX_GPUS).index)
        return Resources(
            gpus=self.num_gpus,
            processes=self.processes,
            gpu_kind=kinds[0].rstrip("!+") if kinds else None,
            cpus=self.cpus,
            memory_gib=self.memory,
        )

    @classmethod
    def translated(cls, data: Mapping[str, Any]) -> Translation:  # Any: YAML
        """axolotl's ways to say things, in ours."""
        own = dict(data)
        notes: list[tuple[Loc, str]] = []
        refused: list[tuple[Loc, Problem]] = []
        for key, problem in _REFUSED.items():
            if own.pop(key, None) is not None:
                refused.append(((key,), problem))
        if "spawn" in own:
            own.pop("spawn")
            notes.append((("spawn",), "`spawn` has no effect: `ftl train --detach` returns once the run is accepted"))
        env = own.get("env")
        if isinstance(env, list):
            own["env"], named = _env(env, notes, refused)
            given = own.get("secrets")
            if named:
                own["secrets"] = [*(given if isinstance(given, list) else []), *named]
        if isinstance(own.get("secrets"), list):
            refused += [
                (("secrets", n), Problem("secrets", None, _NO_VALUES, f"write the name alone: {next(iter(one), '')}"))
                for n, one in enumerate(own["secrets"])
                if isinstance(one, dict)
            ]
        return Translation(own, tuple(notes), tuple(refused))


_NO_VALUES = "takes names alone; values come from this shell, never from a file"
_REFUSED = {
    "branch": Problem("branch", None, "ftl's own code goes with every run, at its own version", "remove it"),
    "docker_tag": Problem(
        "docker_tag",
        None,
        "a tag may be another image tomorrow",
        "remove it, and pin another image than ftl's own with `image: repository:tag@sha256:digest`",
    ),
}


def _env(
    entries: list[Any],
    notes: list[tuple[Loc, str]],
    refused: list[tuple[Loc, Problem]],
) -> tuple[dict[str, Any], list[str]]:  # Any: YAML
    """The variables of a list of names and K: V, and the names among them that are secrets."""
    env: dict[str, Any] = {}
    named = []
    for number, entry in enumerate(entries):
        if isinstance(entry, dict):
            env.update({name: value if isinstance(value, str) else str(value) for name, value in entry.items()})
        elif not isinstance(entry, str) or entry not in os.environ:
            told = Problem(f"env.{number}", str(entry), "not set in this shell", f"`export {entry}=...`")
            refused.append((("env", number), told))
        elif is_secret_name(entry):
            named.append(entry)
            notes.append((("env", number), f"{entry} looks like a secret, so it is sent as one of `secrets`"))
        else:
            env[entry] = os.environ[entry]
    return env, named


def _split(gpu: str) -> tuple[str, int | None]:
    kind, _, number = gpu.partition(":")
    return kind, int(number) if number else None
