"""The rows of a dataset as samples, in their own order; broken ones told with file and line."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from ftl.errors import ConfigError, Problem
from ftl.formats.example import RowError, Sample
from ftl.sources import Row, Source
from ftl.tokens import Recipe

Emit = Callable[[str, dict[str, Any]], None]  # Any: the shape depends on the event, see ftl.contract

_SHOWN = 5
_EVERY_S = 2.0


def read_samples(key: str, source: Source, recipe: Recipe, emit: Emit) -> Iterator[Sample]:
    """The samples of a source. A long reading tells how far it is.

    Once a row is broken the rest is only checked. Raises ConfigError with the first broken rows and their number.
    """
    meter = _Meter(key, source.label, emit)
    problems: list[Problem] = []
    for row in source.scan(on_progress=meter.see_share):
        meter.num_rows += 1
        sample = sample_of(row, recipe)
        if isinstance(sample, Problem):
            problems.append(sample)
        elif not problems:
            yield sample
    if problems:
        more = [f"{key}: {len(problems) - _SHOWN} more rows are broken"] if len(problems) > _SHOWN else []
        raise ConfigError(*problems[:_SHOWN], *more)


def sample_of(row: Row | Problem, recipe: Recipe) -> Sample | Problem:
    """What a scanned row becomes; why not, where it cannot be used."""
    if isinstance(row, Problem):
        return row
    try:
        return recipe.sample(row.data)
    except RowError as e:
        return Problem(row.where, str(e))


class _Meter:
    """Tells every two seconds how far a reading is, how fast it goes and how long the rest takes."""

    def __init__(self, key: str, label: str, emit: Emit) -> None:
        self.num_rows = 0
        self._key = key
        self._label = label
        self._emit = emit
        self._started = self._told = time.monotonic()

    def see_share(self, share: float) -> None:
        """`share` of the source, from 0 to 1, is read."""
        now = time.monotonic()
        if now - self._told < _EVERY_S:
            return
        self._told, seconds = now, now - self._started
        told = {"dataset": self._key, "label": self._label, "rows": self.num_rows, "share": share}
        told |= {"rows_per_s": self.num_rows / seconds, "eta_s": seconds * (1 / share - 1) if share else None}
        self._emit("phase", {"name": "data", **told})
