"""What a source gives: rows with their place, some of them not read yet."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ftl.errors import Problem


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a dataset."""

    number: int
    """Its place in its split, from 0, counting every row there, also those that a slice leaves out."""
    where: str
    """For the user: `data.jsonl:17` is a line, `org/name[train]:17` the 17th row."""
    data: dict[str, Any]  # Any: the user's data


class Unread(NamedTuple):
    """A row that is found and not decoded: to leave it out costs next to nothing."""

    where: str
    read: Callable[[], dict[str, Any] | Problem]  # Any: the user's data


@dataclass
class Reading:
    """What a pass over a source has to tell besides its rows."""

    faults: list[Problem] = field(default_factory=list)
    """Why files could not be read, or not to their end; taken out as they are reported."""
    share_of_part: Callable[[], float] = float
    """How much of the split at hand is read, from 0 to 1."""
    _parts: tuple[int, int] = (0, 1)

    def begin_part(self, index: int, of: int) -> None:
        self._parts = (index, of)
        self.share_of_part = float

    def share(self) -> float:
        """How much of everything is read, from 0 to 1."""
        index, of = self._parts
        return (index + self.share_of_part()) / of

    def take_faults(self) -> Iterator[Problem]:
        while self.faults:
            yield self.faults.pop(0)
