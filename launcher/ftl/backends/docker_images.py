"""Images as the engine has them or can fetch them, and whether one fits the job and this machine."""

import logging
import shutil
import subprocess
from typing import TYPE_CHECKING

from ftl.contract import JobSpec
from ftl.errors import BackendError, Problem
from ftl.image import RECIPE_LABEL, Resolved

if TYPE_CHECKING:
    from docker import DockerClient

_LOG = logging.getLogger("ftl.docker")


def image_problems(client: "DockerClient", spec: JobSpec, resolved: Resolved) -> list[Problem]:
    """Why the job cannot run in this image: it is nowhere, or not for these GPUs or their driver."""
    image_id = local_image(client, resolved)
    if image_id is None:
        is_pulled = resolved.reference is not None and not resolved.reference.startswith("sha256:")
        return [] if is_pulled else [Problem(resolved.missing)]
    labels = client.images.get(image_id).labels
    if not spec.resources.gpus:
        return []
    if labels.get("ftl.cuda") == "cpu":
        return [Problem("image", resolved.given, "has no CUDA", "use `image: cuda`, or leave out `gpu`")]
    driver, needed = _driver(), labels.get("ftl.min_driver", "")
    if driver is not None and needed.isdigit() and driver < int(needed):
        return [
            Problem(
                "NVIDIA driver", str(driver), f"the image needs {needed} or newer", "update the driver of this machine"
            )
        ]
    return []


def local_image(client: "DockerClient", resolved: Resolved) -> str | None:
    """The id of what the engine already has: the newest build of the recipe as it stands now, or the reference."""
    from docker.errors import ImageNotFound

    if resolved.recipe is not None:
        labels = {"label": f"{RECIPE_LABEL}={resolved.recipe.sha256}"}
        builds = client.api.images(filters=labels)
        if builds:
            return str(max(builds, key=lambda build: int(build["Created"]))["Id"])
    if resolved.reference is None:
        return None
    try:
        return str(client.images.get(_without_tag(resolved.reference)).id)
    except ImageNotFound:
        return None


def pull(client: "DockerClient", resolved: Resolved) -> str:
    """Fetch the image from its registry; its id. Raises BackendError for an image that nobody has published."""
    from docker.errors import APIError

    if resolved.reference is None or resolved.reference.startswith("sha256:"):
        raise BackendError(resolved.missing)
    reference = _without_tag(resolved.reference)
    _LOG.info("pulling %s", reference)
    for progress in client.api.pull(reference, stream=True, decode=True):
        if "error" in progress:
            raise APIError(str(progress["error"]), explanation=str(progress["error"]))
    return str(client.images.get(reference).id)


def _driver() -> int | None:
    """Major version of this machine's NVIDIA driver; None where there is none to ask."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        return None
    command = [smi, "--query-gpu=driver_version", "--format=csv,noheader"]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout
    major = told.strip().split(".")[0]
    return int(major) if major.isdigit() else None


def _without_tag(reference: str) -> str:
    """repository:tag@sha256:... -> repository@sha256:...; the tag is for readers, engines file it under the digest."""
    repository, at, digest = reference.partition("@")
    if not at:
        return reference
    folder, slash, last = repository.rpartition("/")
    return f"{folder}{slash}{last.split(':')[0]}@{digest}"
