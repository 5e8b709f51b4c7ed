"""CloudSection: the keys of a cloud file that every provider shares."""

import re
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

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
    if parts.username or parts.password or parts.query:
        raise ValueError("must be without user, password and query: credentials go into `secrets`")
    return value


STORE_SCHEMES = ("s3", "gs", "hf", "file")
Address = Annotated[str, AfterValidator(_store_address)]


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
    max_attempts: Annotated[int, Field(ge=1)] = 3
    """How often a run that lost its machine is started again without having saved a new checkpoint in between."""
