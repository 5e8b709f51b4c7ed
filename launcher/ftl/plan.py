"""(cloud section, backend's fields, mounts) -> JobSpec. Pure: no clock, no randomness, no environment."""

from typing import Any

from ftl.cloud import CloudSection
from ftl.contract import JobSpec, Mount


def plan(cloud: CloudSection, fields: dict[str, Any], *, run_id: str, mounts: tuple[Mount, ...]) -> JobSpec:
    """The first attempt of a run. `fields` are what the backend decides: image and resources."""
    return JobSpec(
        run_id=run_id,
        env=cloud.env,
        secrets=cloud.secrets,
        timeout_s=cloud.timeout,
        grace_s=cloud.grace,
        mounts=mounts,
        **fields,
    )
