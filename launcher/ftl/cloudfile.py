"""A cloud file -> the provider's backend, made from its validated section."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ftl.backends import Backend, load
from ftl.cloud import seconds
from ftl.cloudenv import env_problems
from ftl.errors import ConfigError, Problem
from ftl.redact import hide
from ftl.yamlfile import read, to_problems

_LOG = logging.getLogger("ftl.cloud")
DEFAULT_PROVIDER = "local"


@dataclass(frozen=True)
class Limits:
    """What the command line says over the cloud file."""

    max_usd: float | None = None
    deadline: str | None = None
    """As `timeout`."""


NO_LIMITS = Limits()


def load_cloud(path: Path | None, limits: Limits = NO_LIMITS) -> Backend:
    """The backend a cloud file asks for, or this machine without one.

    Raises ConfigError with every problem of the file at once.
    """
    if path is None:
        kind = load(DEFAULT_PROVIDER)
        return kind(kind.Cloud.model_validate({"provider": DEFAULT_PROVIDER} | _limiting(limits, kind)))
    file = read(path)
    provider = file.data.get("provider")
    if not isinstance(provider, str):
        raise ConfigError(Problem(str(path), "no `provider`", "every cloud file names one", "add `provider: docker`"))
    try:
        kind = load(provider)
    except ConfigError as error:
        line = file.line_of(("provider",))
        raise ConfigError(Problem(f"{path}:{line}", str(error))) from None
    told = kind.Cloud.translated({k: v for k, v in file.data.items() if v is not None})
    if told.refused:
        raise ConfigError(*(replace(p, where=file.where(loc), given=_given(p)) for loc, p in told.refused))
    for loc, note in told.notes:
        _LOG.warning("%s: %s", file.where(loc), note)
    try:
        cloud = kind.Cloud.model_validate(told.data | _limiting(limits, kind))
    except ValidationError as error:
        raise ConfigError(*to_problems(error, file, kind.Cloud)) from error
    if unsafe := env_problems(cloud, file):
        raise ConfigError(*unsafe)
    hide(cloud.secrets)
    return kind(cloud)


def _given(problem: Problem) -> str:
    return f"{problem.where} = {problem.given}" if problem.given else problem.where


def _limiting(limits: Limits, kind: type[Backend]) -> dict[str, Any]:  # Any: values of a section
    """The keys of the cloud section that the limits set. Raises ConfigError for one that it cannot have."""
    found: dict[str, Any] = {}
    if limits.deadline is not None:
        try:
            found["timeout"] = seconds(limits.deadline)
        except ValueError as error:
            raise ConfigError(Problem("--deadline", limits.deadline, str(error))) from None
    if limits.max_usd is not None:
        if "max_usd" not in kind.Cloud.model_fields:
            allowed = "is for machines that are rented"
            raise ConfigError(Problem("--max-usd", f"{limits.max_usd:g}", allowed, "use --deadline to limit the time"))
        if limits.max_usd <= 0:
            raise ConfigError(Problem("--max-usd", f"{limits.max_usd:g}", "must be more than 0"))
        found["max_usd"] = limits.max_usd
    return found
