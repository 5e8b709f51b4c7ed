"""ftl schema: the keys of a config for editors, as JSON Schema, and for people, as Markdown."""

import json
import sys
from typing import Any

import yaml

from ftl.config.flat import mappings
from ftl.errors import ConfigError, ExitCode, Problem
from ftl.manual.entries import find
from ftl.manual.reference import reference, row
from ftl.manual.schema import config_schema

FORMATS = ("json", "yaml", "markdown")


def run(format: str, *, field: str | None) -> int:
    """Print the schema, or the part of it that one key has."""
    if format not in FORMATS:
        raise ConfigError(Problem("--format", format, f"must be one of {', '.join(FORMATS)}"))
    if format == "markdown":
        text = reference() if field is None else row(find(field)) + "\n"
    else:
        schema = config_schema() if field is None else _node(field)
        text = _written(schema, format)
    sys.stdout.write(text)
    return ExitCode.DONE


def _node(field: str) -> Any:  # Any: JSON
    """The schema of one key."""
    schema = config_schema()
    name = find(field).name
    parent, _, key = name.rpartition(".")
    owners = {"": schema, **{owner: schema["$defs"][kind] for owner, kind in _OWNERS.items()}}
    node = owners.get(parent, {}).get("properties", {}).get(key)
    if node is None:
        raise ConfigError(Problem("--field", name, f"has no schema of its own; ask for `{parent.partition('.')[0]}`"))
    return node


_OWNERS = {"datasets": "DatasetSection", "datasets.type": "InlineType"} | {
    key: section.__name__ for key, section in mappings().items()
}


def _written(schema: Any, format: str) -> str:  # Any: JSON
    if format == "json":
        return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    text: str = yaml.safe_dump(schema, sort_keys=False, allow_unicode=True, width=100)
    return text
