"""(cloud section, backend's fields, mounts) -> JobSpec. Pure: no clock, no randomness, no environment."""

from typing import Any

from ftl.cloud import CloudSection
from ftl.config.hub import HubSection
from ftl.contract import HubRef, JobSpec, Mount, StoreRef, UrlRef

OF_ONE_ACCOUNT = {
    *("environment", "volume", "cache_volume", "volumes", "modal_secrets", "registry_secret"),
    *("python", "shared", "sky"),
}
"""Keys of cloud files that name what one account or its machines have, or run commands there."""
_UNRECORDED = {"env", "secrets", "checkpoints", "max_attempts", "grace", "max_upload_mb_per_s", *OF_ONE_ACCOUNT}
"""Keys of a cloud file that are not told with a delivered model: they hold private things, or change nothing in it."""


def plan(
    cloud: CloudSection,
    fields: dict[str, Any],
    *,
    run_id: str,
    mounts: tuple[Mount, ...],
    stores: tuple[StoreRef, ...] = (),
) -> JobSpec:
    """The first attempt of a run. `fields` are what the backend decides: image and resources."""
    return JobSpec(
        run_id=run_id,
        cloud=cloud.model_dump(mode="json", exclude_defaults=True, exclude=_UNRECORDED) | {"provider": cloud.provider},
        env=cloud.env,
        secrets=cloud.secrets,
        timeout_s=cloud.timeout,
        grace_s=cloud.grace,
        max_upload_mb_per_s=cloud.max_upload_mb_per_s,
        mounts=mounts,
        stores=stores,
        **fields,
    )


def moved(spec: JobSpec, cloud: CloudSection, fields: dict[str, Any]) -> JobSpec:
    """The job for another cloud: what it trains stays, and so do the stores that it was sent to."""
    asked = plan(cloud, fields, run_id=spec.run_id, mounts=spec.mounts, stores=stores_of(HubSection(), cloud))
    kept = {name: getattr(spec, name) for name in ("attempt", "task", "num_shown", "fetches_model")}
    # A directory of one machine is none of another's, unless the other cloud file names it, too.
    lasting = (ref for ref in spec.stores if not (isinstance(ref, UrlRef) and ref.url.startswith("file:")))
    return asked.model_copy(update={**kept, "stores": tuple(dict.fromkeys((*lasting, *asked.stores)))})


def stores_of(hub: HubSection, cloud: CloudSection) -> tuple[StoreRef, ...]:
    """Where the run goes beside its own directory, as config and cloud file say."""
    found: list[StoreRef] = []
    if hub.repo is not None and hub.pushes is not False:
        found.append(HubRef(repo=hub.repo, branch=hub.branch, is_private=hub.is_private, strategy=hub.strategy))
    if cloud.checkpoints is not None:
        found.append(UrlRef(url=cloud.checkpoints))
    return tuple(found)
