"""The keys of a cloud file with `provider: skypilot`, checked without SkyPilot."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ftl.cloud import RentedCloud, Seconds

CLOUDS = (
    *("aws", "gcp", "runpod", "kubernetes", "k8s", "slurm", "ssh", "azure", "cudo", "do", "fluidstack", "hyperbolic"),
    *("ibm", "lambda", "mithril", "nebius", "oci", "paperspace", "primeintellect", "scp", "seeweb", "shadeform"),
    *("vast", "verda", "vsphere", "yotta"),
)
"""What `infra` may begin with. SkyPilot itself says whether it can use them."""
WITHOUT_IMAGES = ("slurm", "ssh")
"""Machines that are there already: what training needs is installed there, unless the file names an image."""
WITHOUT_PRICES = (*WITHOUT_IMAGES, "kubernetes", "k8s")
"""Machines that are somebody's own."""
STRATEGIES = ("FAILOVER", "EAGER_NEXT_REGION")
STOP_S = 30
"""SkyPilot kills a job so long after it was asked to stop, whatever grace it would want."""
_SET_BY_FTL = ("name", "run", "envs", "secrets", "num_nodes", "workdir")
"""Keys of a task that `sky` must leave alone, because following and resuming a run depend on them."""


def _infra(value: str) -> str:
    cloud, *places = value.split("/")
    if cloud not in CLOUDS or any(not place for place in places):
        known = ", ".join(CLOUDS)
        raise ValueError(f"must be a cloud, cloud/region or cloud/region/zone; clouds are {known}")
    return value


def _spot(value: Any) -> Any:  # Any: what YAML holds
    """`prefer` or a boolean. Other values pass, for pydantic to refuse."""
    return value.lower() if isinstance(value, str) else value


Infra = Annotated[str, AfterValidator(_infra)]


class SkypilotCloud(RentedCloud):
    provider: Literal["skypilot"] = "skypilot"
    infra: Infra | None = None
    """Where: aws, gcp, runpod, kubernetes, slurm/NAME ..., also aws/us-east-1 or aws/us-east-1/us-east-1a."""
    any_of: tuple[Infra, ...] = ()
    """Several such places, of which SkyPilot takes the cheapest that has the machine; in place of `infra`."""
    ordered: tuple[Infra, ...] = ()
    """Several such places, tried in this order; in place of `infra`."""
    spot: Annotated[Literal["prefer"] | bool, BeforeValidator(_spot)] = False
    """Machines that may be taken back at any moment, for a third of the price; `prefer` takes others where there are
    none."""
    recover: bool | None = None
    """Whether SkyPilot watches the run and starts it on another machine when its own is lost (a managed job). Always
    with `spot`; without, ftl starts it again while `ftl train` or `ftl attach` watches."""
    strategy: str | None = None
    """How a managed job looks for its next machine: EAGER_NEXT_REGION or FAILOVER."""
    max_usd_per_hour: Annotated[float, Field(gt=0)] | None = None
    """No machine that costs more by the hour is taken; each by itself, by SkyPilot's catalog."""
    controller: Literal["local", "cloud"] | None = None
    """What watches a managed job: `local`, the API server, which must stay up; `cloud`, a small machine of its own,
    which costs a little. Managed jobs need a choice."""
    autostop: Annotated[int, Field(ge=1)] = 10
    """Minutes after the end of the job, or after everybody has lost sight of it, when the machine ends itself."""
    grace: Annotated[Seconds, Field(le=STOP_S - 5)] = STOP_S - 5
    """Time between the request to stop and the kill; one checkpoint must fit. SkyPilot allows 25 s."""
    python: str | None = None
    """A Python on the machines that has what training needs, such as one of your cluster; in place of an image."""
    shared: str | None = None
    """A directory that machines mount, where runs and the cache of tokens live, such as the NFS of a cluster. Without
    it a run lives on its first machine, below the home."""
    sky: dict[str, Any] = {}  # Any: YAML
    """Anything SkyPilot's own YAML can say, put over what ftl writes."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if sum(bool(given) for given in (self.infra, self.any_of, self.ordered)) > 1:
            raise ValueError("infra, any_of and ordered: only one of them can say where")
        if self.regions and self.infra is not None and "/" in self.infra:
            raise ValueError("regions: `infra` names a region already; write the cloud alone, or remove one of them")
        if self.regions and self.infra is None:
            raise ValueError("regions: needs `infra: CLOUD`, whose regions they are")
        if self.is_managed and self.controller is None:
            raise ValueError(
                "controller: a run that SkyPilot starts again needs one: `controller: local` is the API server, which "
                "must stay up, `controller: cloud` a small machine that is rented beside the others"
            )
        if not self.is_managed and (self.controller or self.strategy):
            key = "controller" if self.controller else "strategy"
            raise ValueError(f"{key}: is for managed jobs; add `spot: true` or `recover: true`, or remove it")
        if self.spot and self.recover is False:
            raise ValueError("recover: false: spot machines are taken back, so it must be true with `spot`")
        if self.strategy is not None and self.strategy not in STRATEGIES:
            raise ValueError(f"strategy: must be one of {', '.join(STRATEGIES)}")
        if self.python is not None and self.image is not None:
            raise ValueError("python: is in place of an image; remove one of them")
        free = [cloud for cloud in self.clouds if cloud in WITHOUT_PRICES]
        if self.max_usd_per_hour is not None and free:
            raise ValueError(f"max_usd_per_hour: SkyPilot has no prices for {free[0]}; remove it")
        _check_sky(self.sky)
        return self

    @property
    def is_managed(self) -> bool:
        """Whether SkyPilot itself starts the run again."""
        return bool(self.spot) or bool(self.recover)

    @property
    def places(self) -> tuple[str, ...]:
        """Every place named; empty where SkyPilot chooses among all clouds."""
        if self.infra is not None and self.regions:
            return tuple(f"{self.infra}/{region}" for region in self.regions)
        return (self.infra,) if self.infra is not None else self.any_of or self.ordered

    @property
    def clouds(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(place.partition("/")[0] for place in self.places))

    @property
    def gpus(self) -> tuple[str, ...]:
        """Each choice of GPUs as KIND:COUNT."""
        return tuple(one if ":" in one else f"{one}:{self.gpu_count or 1}" for one in self.gpu)

    @property
    def num_gpus(self) -> int:
        """Of each machine, of the first choice."""
        return int(self.gpus[0].partition(":")[2]) if self.gpus else 0

    @property
    def installs(self) -> bool:
        """Whether there is no image: what training needs is on the machine, or is installed there."""
        is_bare = bool(self.clouds) and all(cloud in WITHOUT_IMAGES for cloud in self.clouds)
        return self.python is not None or self.image == "none" or (self.image is None and is_bare)


def _check_sky(sky: dict[str, Any]) -> None:  # Any: YAML
    """Raises ValueError for what must not be overridden, and for what SkyPilot would take without a word."""
    taken = [key for key in sky if key in _SET_BY_FTL]
    if taken:
        raise ValueError(f"sky.{taken[0]}: is written by ftl, which could not follow the run otherwise; remove it")
    if not all(isinstance(key, str) and re.fullmatch(r"[a-z_]+", key) for key in sky):
        raise ValueError("sky: must be a mapping of SkyPilot's own task keys")
