"""A stream of rows that breaks off and is taken up again."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from ftl.sources import UnreachableError, retry
from ftl.sources.hub import HubShelf
from ftl.sources.hubrepo import Repo
from ftl.sources.row import Reading


class Builder:
    """Streams five rows; the connection is lost before the rows listed, once for each time they are listed."""

    def __init__(self, *lost_before: int) -> None:
        self.lost_before = list(lost_before)
        self.info = SimpleNamespace(splits=None)

    def as_streaming_dataset(self, split: str) -> Any:  # Any: stands for an IterableDataset
        return SimpleNamespace(skip=self._rows_from)

    def _rows_from(self, first: int) -> Iterator[dict[str, int]]:
        for n in range(first, 5):
            if n in self.lost_before:
                self.lost_before.remove(n)
                raise ConnectionResetError
            yield {"n": n}


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", waited.append)
    return waited


def streamed(builder: Builder) -> list[int]:
    shelf = HubShelf(Repo("org/rows"), "c0ffee", None, (), True, builder)
    return [unread.read()["n"] for unread in shelf.unread("train", Reading())]  # type: ignore[index]


@pytest.mark.parametrize("lost_before", [(), (0,), (3,), (1, 1, 4)])
def test_lost_connection_loses_and_repeats_no_row(lost_before: tuple[int, ...], waits: list[float]) -> None:
    assert streamed(Builder(*lost_before)) == [0, 1, 2, 3, 4]
    assert len(waits) == len(lost_before)


def test_stream_that_stays_away_is_no_end_of_the_data() -> None:
    with pytest.raises(UnreachableError, match=r"does not answer \(ConnectionResetError\), 3 times in 15 s"):
        streamed(Builder(2, 2, 2))
