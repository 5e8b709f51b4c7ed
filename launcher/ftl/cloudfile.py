"""A cloud file -> the provider's backend, made from its validated section."""

import logging
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from ftl.backends import Backend, load
from ftl.cloudenv import env_problems
from ftl.errors import ConfigError, Problem
from ftl.redact import hide
from ftl.yamlfile import read, to_problems

_LOG = logging.getLogger("ftl.cloud")
DEFAULT_PROVIDER = "local"


def load_cloud(path: Path | None) -> Backend:
    """The backend a cloud file asks for, or this machine without one.

    Raises ConfigError with every problem of the file at once.
    """
    if path is None:
        kind = load(DEFAULT_PROVIDER)
        return kind(kind.Cloud.model_validate({"provider": DEFAULT_PROVIDER}))
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
        cloud = kind.Cloud.model_validate(told.data)
    except ValidationError as error:
        raise ConfigError(*to_problems(error, file, kind.Cloud)) from error
    if unsafe := env_problems(cloud, file):
        raise ConfigError(*unsafe)
    hide(cloud.secrets)
    return kind(cloud)


def _given(problem: Problem) -> str:
    return f"{problem.where} = {problem.given}" if problem.given else problem.where
