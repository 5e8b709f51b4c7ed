"""What the command line writes over a config: flags named like keys, and `--set`."""

from collections.abc import Sequence

from ftl.config.flags import parse_flags
from ftl.errors import ConfigError, Problem


def read_overrides(flags: Sequence[str], assignments: Sequence[str], options: Sequence[str]) -> list[tuple[str, str]]:
    """(key, text of the value) of every override, `--set` last. `options` are the command's own, for "did you mean"."""
    return [*parse_flags(flags, options), *_assignments(assignments)]


def _assignments(texts: Sequence[str]) -> list[tuple[str, str]]:
    pairs = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            raise ConfigError(Problem("--set", repr(text), "must be key=value", "e.g. --set learning_rate=1e-4"))
        pairs.append((key.strip(), value))
    return pairs
