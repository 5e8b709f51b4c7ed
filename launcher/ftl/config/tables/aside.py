"""How the tables of keys that ftl does not honour are written: many keys, one reason."""

from collections.abc import Iterable
from typing import Any

from ftl.config.dialect import Aside


def aside(names: Iterable[str], reason: str, *harmless: Any) -> dict[str, Aside]:  # Any: what YAML holds
    """Each of `names` with `reason`; false and `harmless` ask for nothing."""
    return {name: Aside(reason, (False, *harmless)) for name in names}


def unbuilt(names: Iterable[str], reason: str, *harmless: Any) -> dict[str, Aside]:  # Any: what YAML holds
    """As `aside`, for keys that are to come."""
    return {name: Aside(f"not built yet: {reason}", (False, *harmless), is_unbuilt=True) for name in names}
