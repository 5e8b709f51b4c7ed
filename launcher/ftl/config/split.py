"""The grammar of `split`: `train`, `train[:1%]`, `train[100:200]`, `train[-50:]`, `train[:50%]+test[:10]`."""

import re
from dataclasses import dataclass

from ftl.errors import ConfigError, Problem

_BOUND = r"(-?\d[\d_]{0,17})(%?)"
_PART = re.compile(rf"(\w[\w.\-]*)(?:\[\s*(?:{_BOUND})?\s*:\s*(?:{_BOUND})?\s*\])?")
_GRAMMAR = "must be like train, train[:1%], train[100:200] or train[:50%]+test[:10]"


@dataclass(frozen=True)
class Part:
    """A split, or a slice of one."""

    name: str
    start: int | None = None
    stop: int | None = None
    is_percent: bool = False
    """The bounds are percent of the split, rounded to the closest row."""

    @property
    def needs_count(self) -> bool:
        """Whether the bounds say nothing until the number of rows is known."""
        return self.is_percent or (self.start or 0) < 0 or (self.stop or 0) < 0

    def bounds(self, num_rows: int | None) -> tuple[int, int | None]:
        """The first row and the one after the last; None is the end of a split of unknown size."""
        if num_rows is None:
            assert not self.needs_count, "this slice needs the number of rows"
            return self.start or 0, self.stop
        return self._row(self.start, 0, num_rows), self._row(self.stop, num_rows, num_rows)

    def _row(self, bound: int | None, default: int, num_rows: int) -> int:
        if bound is None:
            return default
        row = round(bound * num_rows / 100) if self.is_percent else bound
        return min(max(row + num_rows if row < 0 else row, 0), num_rows)


def parse_split(text: str) -> tuple[Part, ...]:
    """The parts of a split, in order. Raises ConfigError."""
    return tuple(_parse(part.strip(), text) for part in text.split("+"))


def _parse(part: str, text: str) -> Part:
    match = _PART.fullmatch(part)
    if match is None:
        raise ConfigError(Problem("split", repr(text), _GRAMMAR))
    name, start, start_unit, stop, stop_unit = match.groups()
    units = {unit for bound, unit in ((start, start_unit), (stop, stop_unit)) if bound}
    if len(units) > 1:
        raise ConfigError(Problem("split", repr(text), "both ends of a slice must be rows, or both percent"))
    is_percent = units == {"%"}
    bounds = [None if bound is None else int(bound.replace("_", "")) for bound in (start, stop)]
    if is_percent and any(abs(bound) > 100 for bound in bounds if bound is not None):
        raise ConfigError(Problem("split", repr(text), "percentages must be from -100 to 100"))
    return Part(name, bounds[0], bounds[1], is_percent)
