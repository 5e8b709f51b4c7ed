"""CloudSection: the keys of a cloud file that every provider shares."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from ftl.errors import Problem
from ftl.section import Section

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(value: Any) -> Any:
    """Seconds from an int, or from text such as `90s`, `45m`, `2h`, `1d`. Other values pass, for pydantic to refuse."""
    if isinstance(value, bool):
        raise ValueError("must be seconds, or a number with s, m, h or d such as 90m")
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+)\s*([smhd]?)\s*", value)
        if match is None:
            raise ValueError("must be seconds, or a number with s, m, h or d such as 90m")
        return int(match[1]) * _UNITS_S[match[2] or "s"]
    return value


Seconds = Annotated[int, BeforeValidator(seconds), Field(ge=1)]
EnvName = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]


def _store_address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in STORE_SCHEMES or not (parts.netloc if parts.scheme != "file" else parts.path[1:]):
        raise ValueError(f"must begin with {', '.join(f'{scheme}://' for scheme in STORE_SCHEMES)} and name a place")
    if parts.scheme == "hf" and (parts.netloc != "buckets" or parts.path.strip("/").count("/") < 1):
        raise ValueError(
            "must be hf://buckets/user/name where it is on the Hub; a model goes to hub_model_id of the config"
        )
    if parts.username or parts.password or parts.query:
        raise ValueError("must be without user, password and query: credentials go into `secrets`")
    if parts.scheme in _BUCKETS and not _BUCKETS[parts.scheme].fullmatch(parts.netloc):
        raise ValueError(f"names no bucket: {parts.netloc!r} is not 3 to 63 lower-case letters, digits, - and .")
    return value


STORE_SCHEMES = ("s3", "gs", "hf", "file")
_BUCKETS = {
    "s3": re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"),
    "gs": re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]"),
}
"""Names of buckets, as docs.aws.amazon.com and cloud.google.com have them."""
Address = Annotated[str, AfterValidator(_store_address)]


Loc = tuple[str | int, ...]


@dataclass(frozen=True)
class Translation:
    """A cloud file in the words of its section. Places are those of the file, so that messages can name the line."""

    data: dict[str, Any]  # Any: YAML
    notes: tuple[tuple[Loc, str], ...] = ()
    """What the user should know about it."""
    refused: tuple[tuple[Loc, Problem], ...] = ()


class CloudSection(Section):
    """Keys every provider has. A provider's own module subclasses it with its own keys."""

    provider: str
    timeout: Seconds | None = None
    """The run saves a checkpoint and stops after this long: seconds, or 90m, 2h, 1d."""
    grace: Seconds = 60
    """Time between the request to stop and the kill; one checkpoint must fit."""
    env: dict[EnvName, str] = {}
    """Plain variables for the job. They are visible to whoever can inspect the job: secrets go below."""
    secrets: tuple[EnvName, ...] = ()
    """Names of variables of this shell whose values the job gets through the backend's secret channel."""
    checkpoints: Address | None = None
    """A bucket or directory that the run is sent to while it trains, so that any machine can go on with it:
    s3://bucket/place, gs://bucket/place, hf://buckets/user/name, or file:///place."""
    max_upload_mb_per_s: Annotated[float, Field(ge=0.1)] | None = None
    """How fast checkpoints and the model are sent to `checkpoints` and the Hub, together: megabytes (10^6) a second; as
    fast as they go when absent."""
    max_attempts: Annotated[int, Field(ge=1)] = 3
    """How often a run that lost its machine is started again without having saved a new checkpoint in between."""

    @classmethod
    def translated(cls, data: Mapping[str, Any]) -> Translation:  # Any: YAML
        """The content of a cloud file with other tools' words for this provider in ours."""
        return Translation(dict(data))


def _gpu_choice(value: Any) -> Any:
    """`H100`, `H100:8` or a list of such, in order of preference. Other values pass, for pydantic to refuse."""
    if value == "none":
        return ()
    return (value,) if isinstance(value, str) else value


GpuChoice = Annotated[
    tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9!._-]+(:[1-9][0-9]*)?$")], ...], BeforeValidator(_gpu_choice)
]


class RentedCloud(CloudSection):
    """Keys of the clouds that rent machines by the second."""

    gpu: GpuChoice = ()
    """A kind such as H100, how many with H100:8; several in order of preference; `none` is a CPU machine."""
    gpu_count: Annotated[int, Field(ge=1)] | None = None
    """GPUs of each machine, where `gpu` does not say it with a colon; 1 when absent."""
    nodes: Annotated[int, Field(ge=1)] = 1
    """Machines that train together."""
    processes: Annotated[int, Field(ge=1)] = 1
    """How many processes train together on a machine without GPUs. With GPUs there is one a GPU."""
    cpus: Annotated[float, Field(gt=0)] | None = None
    """CPU cores of each machine, at least; the provider's own choice when absent."""
    memory: Annotated[float, Field(gt=0)] | None = None
    """Main memory of each machine in GiB, at least; the provider's own choice when absent."""
    disk: Annotated[int, Field(ge=1)] | None = None
    """Disk of each machine in GiB; the provider's own choice when absent."""
    regions: tuple[str, ...] = ()
    """Where it may run; anywhere when absent."""
    image: str | None = None
    """A name of images.lock.toml that is published, or repository:tag@sha256:digest; `cuda` or `cpu` when absent."""
    max_usd: Annotated[float, Field(gt=0)] | None = None
    """The run saves a checkpoint and stops before it has cost more, by the provider's prices at launch."""
