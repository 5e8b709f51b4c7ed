"""Whether a bucket that a run is to be sent to is there, asked before a machine is rented."""

import os
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from ftl.errors import Problem
from ftl.sources.remote import file_system, shown_address, status_of
from ftl.sources.retry import causes

_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
CREDENTIALS = {"s3": ("AWS_ACCESS_KEY_ID",), "gs": ("GOOGLE_APPLICATION_CREDENTIALS",)}
"""Variables that a job gets its access to such buckets by, where it is not the machine that has it."""
_VARIABLES = {
    "s3": (*CREDENTIALS["s3"], "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    "gs": (*CREDENTIALS["gs"], "STORAGE_EMULATOR_HOST"),
}
_FILES = {"s3": (".aws/credentials", ".aws/config"), "gs": (".config/gcloud/application_default_credentials.json",)}
"""Below the home directory. Nobody is asked without one of these: clients then look for a cloud around them."""


def bucket_problem(address: str, key: str, *, same_access: bool) -> Problem | None:
    """Why the bucket of an address cannot take a run; None where it can, or where this machine cannot tell.

    `same_access` says that the job has the credentials of this shell: what is refused here will be refused there.
    """
    parts = urlsplit(address)
    package = _PACKAGES.get(parts.scheme)
    if package is None or find_spec(package) is None or not _has_access(parts.scheme):
        return None
    try:
        (_list_s3 if parts.scheme == "s3" else _list_gs)(parts.netloc, parts.path.strip("/"))
    except Exception as error:  # of several clients, each with its own tree of classes
        return _problem(error, Problem(key, shown_address(address)), parts.netloc, same_access=same_access)
    return None


def _has_access(scheme: str) -> bool:
    """Whether this machine has any credentials for such buckets."""
    is_set = any(os.environ.get(name) for name in _VARIABLES[scheme])
    return is_set or any((Path.home() / name).is_file() for name in _FILES[scheme])


def _problem(error: Exception, about: Problem, bucket: str, *, same_access: bool) -> Problem | None:
    kinds = {type(cause).__name__ for cause in causes(error)}
    statuses = [status for cause in causes(error) if (status := status_of(cause)) is not None]
    if "NoCredentialsError" in kinds or "DefaultCredentialsError" in kinds:
        return None
    if isinstance(error, FileNotFoundError) or 404 in statuses:
        allowed = f"there is no bucket {bucket!r}"
        return Problem(about.where, about.given, allowed, "make it, or name another one")
    if same_access and (isinstance(error, PermissionError) or 401 in statuses or 403 in statuses):
        allowed = f"the credentials of this shell, which the job gets, may not list the bucket {bucket!r}"
        return Problem(about.where, about.given, allowed, "name another bucket, or get access to this one")
    return None  # nobody answers, or in a way that says nothing of the bucket


def _list_s3(bucket: str, prefix: str) -> None:
    """List one thing below the prefix, as the job does first."""
    config = {"connect_timeout": 5, "read_timeout": 10, "retries": {"max_attempts": 1}}
    system = file_system("s3", config_kwargs=config)
    system.call_s3("list_objects_v2", Bucket=bucket, Prefix=f"{prefix}/" if prefix else "", MaxKeys=1)


def _list_gs(bucket: str, prefix: str) -> None:
    system = file_system("gs", timeout=10)
    system.call("GET", "b/{}/o", bucket, prefix=f"{prefix}/" if prefix else "", maxResults=1, json_out=True)
