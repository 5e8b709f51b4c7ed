"""What a campaign has done, one JSON line a training, so that it can be left and gone on with; and the table of it."""

import json
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

WentOn = Literal["here", "store", "start", "itself"]
"""How the run went on after a blow: from a checkpoint in its directory, from one of a store, from the beginning, or in
the same attempt."""
Quota = Counter[tuple[int, str]]
"""Signal and moment -> hits that are wanted."""


@dataclass
class Hit:
    """One blow that was proven to have landed."""

    moment: str
    victim: str
    signal: int
    touch: str
    """The operation on a file that it came before, or `between`; `behind` while a checkpoint was written and training
    went on."""
    status: int
    """How the supervisor ended."""
    went_on: WentOn = "itself"
    steps_lost: int = 0
    """Trained by then and in no whole checkpoint of the run directory."""

    @property
    def is_kill(self) -> bool:
        return self.signal == signal.SIGKILL

    @property
    def place(self) -> str:
        return f"{'' if self.is_kill else signal.Signals(self.signal).name + ' '}{self.moment}: {self.victim}"


@dataclass
class Training:
    """One run from its first attempt to its last."""

    kind: str
    seed: int
    number: int
    attempts: int = 0
    machines_lost: int = 0
    hits: list[Hit] = field(default_factory=list)
    failure: str | None = None
    """What was not as promised, with the directory that is kept to look at."""
    commit: str = ""
    ended_at: float = 0.0


class Ledger:
    """All trainings of a campaign; with a file also those of the processes before this one."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._commit = _commit()
        self.trainings: list[Training] = []
        if file is not None and file.exists():
            self.trainings = [_read(json.loads(line)) for line in file.read_text().splitlines()]

    def add(self, training: Training) -> None:
        training.commit, training.ended_at = self._commit, time.time()
        self.trainings.append(training)
        if self._file is not None:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a") as file:
                file.write(json.dumps(asdict(training)) + "\n")

    def of(self, kind: str) -> list[Training]:
        return [training for training in self.trainings if training.kind == kind]

    def left(self, kind: str, wanted: Quota) -> Quota:
        """What of that was not hit yet, in trainings of that kind."""
        done = Counter((hit.signal, hit.moment) for training in self.of(kind) for hit in training.hits)
        return Counter({key: count - done[key] for key, count in wanted.items() if count > done[key]})

    def failures(self) -> list[str]:
        return [training.failure for training in self.trainings if training.failure is not None]


def summary(trainings: Sequence[Training]) -> dict[str, Any]:  # Any: JSON
    """Counts of everything, as numbers for documents."""
    hits = [hit for training in trainings for hit in training.hits]
    kills = [hit for hit in hits if hit.is_kill]
    by_kind = {kind: [t for t in trainings if t.kind == kind] for kind in dict.fromkeys(t.kind for t in trainings)}
    return {
        "trainings": len(trainings),
        "attempts": sum(training.attempts for training in trainings),
        "machines_lost": sum(training.machines_lost for training in trainings),
        "sigkill": len(kills),
        "sigterm": sum(hit.signal == signal.SIGTERM for hit in hits),
        "sigint": sum(hit.signal == signal.SIGINT for hit in hits),
        "kills_by_moment": dict(Counter(hit.moment for hit in kills)),
        "kills_by_victim": dict(Counter(hit.victim for hit in kills)),
        "kills_by_kind": {kind: sum(h.is_kill for t in some for h in t.hits) for kind, some in by_kind.items()},
        "stops_by_kind": {kind: sum(not h.is_kill for t in some for h in t.hits) for kind, some in by_kind.items()},
        "touches": dict(Counter(hit.touch.removeprefix("behind ").split()[0] for hit in kills)),
        "went_on": dict(Counter(hit.went_on for hit in hits)),
        "kills_behind": sum(hit.touch.startswith("behind") for hit in kills),
        "most_steps_lost": max((hit.steps_lost for hit in hits), default=0),
        "failures": [training.failure for training in trainings if training.failure is not None],
        "commits": dict(Counter(training.commit for training in trainings)),
    }


def table(trainings: Sequence[Training]) -> str:
    """Kind of training x place of the blow x how the run went on, in columns."""
    rows = [("kind", "hit", "times", "here", "store", "start", "itself", "steps lost", "failed")]
    places = sorted({(t.kind, hit.place) for t in trainings for hit in t.hits})
    for kind, place in places:
        found = [(t, hit) for t in trainings for hit in t.hits if (t.kind, hit.place) == (kind, place)]
        rows.append((kind, place, *_cells(found)))
    rows.append(("all", "", *_cells([(t, hit) for t in trainings for hit in t.hits])))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(_padded(row, widths)) for row in rows)


def _padded(row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for number, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.ljust(width) if number < 2 else cell.rjust(width)


def _cells(found: Iterable[tuple[Training, Hit]]) -> tuple[str, ...]:
    found = list(found)
    ways = Counter(hit.went_on for _, hit in found)
    lost = max((hit.steps_lost for _, hit in found), default=0)
    failed = len({id(training) for training, _ in found if training.failure is not None})
    return (str(len(found)), *(str(ways[way]) for way in ("here", "store", "start", "itself")), str(lost), str(failed))


def _read(record: dict[str, Any]) -> Training:  # Any: JSON
    return Training(**{**record, "hits": [Hit(**hit) for hit in record["hits"]]})


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    told = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return told.stdout.strip() or "unknown"
