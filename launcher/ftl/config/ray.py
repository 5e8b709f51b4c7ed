"""Ray: who starts the ranks in place of the supervisor."""

from typing import Annotated

from pydantic import AfterValidator, Field

from ftl.config.marker import Flat
from ftl.section import Section


def _at_most_one_gpu(resources: dict[str, float] | None) -> dict[str, float] | None:
    if resources is not None and resources.get("GPU", 0) not in (0, 1):
        raise ValueError("GPU must be 0 or 1: each rank trains on one GPU, and ray_num_workers says how many there are")
    return resources


Resources = dict[str, Annotated[float, Field(ge=0)]]


class RaySection(Section):
    is_used: Annotated[bool, Flat("use_ray")] = False
    """Have Ray Train start the ranks, and report every verified checkpoint to it: on the cluster that RAY_ADDRESS
    names, else on one of this machine alone that ends with the run."""
    num_workers: Annotated[int, Flat("ray_num_workers"), Field(ge=1)] = 1
    """Ranks that train together, on whichever machines of the cluster have room."""
    run_name: Annotated[str | None, Flat("ray_run_name"), Field(pattern=r"^[\w.-]+$")] = None
    """What Ray calls the run; ftl's id of it when absent."""
    resources: Annotated[Resources | None, AfterValidator(_at_most_one_gpu), Flat("resources_per_worker")] = None
    """What each rank takes of the cluster; one GPU where it has any, else one CPU, when absent."""
