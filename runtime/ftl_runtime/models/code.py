"""Python code that a model's repository brings along: run where the user trusts it, and then one commit of it alone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftl.errors import ConfigError
from ftl.sources.hubrepo import Repo, is_commit, resolve_commit

_FILES = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
_ELSEWHERE = "--"
"""Stands between a repository and a class in it, as in org/model--modeling_own.OwnModel."""


def check_pinned(repo: Repo) -> None:
    """Raises ConfigError where the base is no commit, with the one that it is today, or UnreachableError."""
    if not is_commit(repo.revision):
        raise ConfigError(
            f"trust_remote_code: runs code of {repo.id}, which is pinned to no commit; once you have read it, write "
            f"`model_revision: {resolve_commit(repo)}`, which it is today"
        )


def check_own(directory: Path) -> None:
    """Raises ConfigError where files there take code of another repository, which transformers would fetch as it is
    on the Hub that day, whatever commit these files are of."""
    for name in _FILES:
        try:
            settings = json.loads((directory / name).read_bytes())
        except (OSError, ValueError):
            continue  # none, or a broken one, which transformers has a sentence for
        for reference in _texts(settings.get("auto_map") if isinstance(settings, dict) else None):
            repo, elsewhere, _ = reference.partition(_ELSEWHERE)
            if elsewhere:
                raise ConfigError(
                    f"trust_remote_code: auto_map of {directory / name} takes code of the repository {repo}, which is "
                    "pinned to no commit; copy base and code into one directory, leave only the names of the classes "
                    "in auto_map, and name that directory as base_model"
                )


def _texts(value: Any) -> Iterator[str]:  # Any: JSON
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
