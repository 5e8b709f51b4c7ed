"""What one key of a file is called today."""

from typing import Any

from ftl.config.dialect import Dialect, Values


def in_todays_keys(key: str, value: Any, given: Values, dialect: Dialect) -> dict[str, Any]:  # Any: what YAML holds
    """The keys that `key` stands for, with their values; itself where nothing is newer, none where it says nothing.

    `given` is the mapping that it stands in. A newer key may be one that ftl refuses for now. Raises ValueError, with
    what is allowed, when the value can be nothing else.
    """
    conversion = dialect.values.get(key) or dialect.convert.get(key)
    if conversion is None:
        return {key: value}
    found: dict[str, Any] = {}  # Any: what YAML holds
    for name, new in conversion.convert(value, given).items():
        if name == key:
            found[name] = new
            continue
        try:
            found |= in_todays_keys(name, new, given, dialect)
        except ValueError:
            found[name] = new  # refused under its newer name too
    return found
