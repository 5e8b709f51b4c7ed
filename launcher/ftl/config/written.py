"""A config back in the flat dialect, as somebody would write it: what differs from the defaults."""

from typing import Any

from ftl.config.flat import keys
from ftl.config.train import TrainConfig


def flat(config: TrainConfig) -> dict[str, Any]:  # Any: JSON
    """The keys of a file that reads as `config`, in the order of the sections."""
    written: dict[str, Any] = {}
    for key in keys().values():
        section, name = key.loc
        values = getattr(config, section)
        if values is None:
            continue
        told = values.model_dump(mode="json", exclude_defaults=True, by_alias=True)
        if name in told:
            written[key.key] = _plain(told[name])
    return written


def _plain(value: Any) -> Any:  # Any: JSON
    """The value with whole numbers written as such: 100 steps, not 100.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
