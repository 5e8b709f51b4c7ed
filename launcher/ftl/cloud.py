"""CloudSection: the keys of a cloud file that every provider shares."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

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
    max_attempts: Annotated[int, Field(ge=1)] = 3
    """How often a run that lost its machine is started again without having saved a new checkpoint in between."""
