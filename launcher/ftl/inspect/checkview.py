"""What `ftl check` shows: its progress, a panel for each dataset, what will be trained, and every problem."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ftl.console import console, notice, show_error
from ftl.errors import ConfigError, Problem
from ftl.inspect.datacheck import DatasetReport
from ftl.inspect.summary import Share, Summary
from ftl.inspect.tally import Tally

if TYPE_CHECKING:
    from rich.progress import Progress

_PLAIN_EVERY_S = 10.0
_JSON_EVERY_S = 1.0
_PANEL_WIDTH = 100
_PERCENTILES = (50, 95, 99)
_MAX_SIZES = 4  # sequence lengths that a panel compares


class CheckView(Protocol):
    """Shows a check to whoever runs it."""

    def begin(self, report: DatasetReport) -> None:
        """A dataset is about to be read."""

    def on_share(self, share: float) -> None:
        """How much of it is read, from 0 to 1."""

    def on_rows(self, rows: int, tokens: int) -> None: ...

    def dataset(self, report: DatasetReport, sequence_len: int) -> None:
        """A dataset has been read."""

    def note(self, text: str) -> None: ...

    def end(self, summary: Summary | None, problems: Sequence[Problem]) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_check_view(as_json: bool) -> CheckView:
    """JSON lines, or panels with a live bar above them, or with a line now and then where there is no terminal."""
    return JsonCheckView() if as_json else TextCheckView(is_live=console.is_terminal)


class JsonCheckView:
    """Every event as one object a line: progress, dataset, note, problem, result."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._shown_at = 0.0
        self._key = ""
        self._share = 0.0

    def begin(self, report: DatasetReport) -> None:
        self._key, self._share, self._shown_at = report.key, 0.0, self._clock()

    def on_share(self, share: float) -> None:
        self._share = share

    def on_rows(self, rows: int, tokens: int) -> None:
        if self._clock() - self._shown_at >= _JSON_EVERY_S:
            self._shown_at = self._clock()
            share = round(self._share, 4)
            _emit({"event": "progress", "key": self._key, "rows": rows, "tokens": tokens, "share": share})

    def dataset(self, report: DatasetReport, sequence_len: int) -> None:
        _emit({"event": "dataset", "key": report.key, "path": report.name, **_counts(report)})

    def note(self, text: str) -> None:
        _emit({"event": "note", "text": text})

    def end(self, summary: Summary | None, problems: Sequence[Problem]) -> None:
        for problem in problems:
            _emit({"event": "problem", "where": problem.where, "text": str(problem)})
        sides = {} if summary is None else {"train": summary.train, "eval": summary.eval}
        shown = {name: None if share is None else vars(share) for name, share in sides.items()}
        _emit({"event": "result", "ok": not problems, "problems": len(problems), **shown})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class TextCheckView:
    """Panels. `is_live` draws a bar with rate and time left, which goes away; else a line at most every ten seconds."""

    def __init__(self, *, is_live: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._is_live = is_live
        self._progress: Progress | None = None
        self._name = ""
        self._share = 0.0
        self._began_at = self._shown_at = 0.0

    def begin(self, report: DatasetReport) -> None:
        self._name, self._share = report.name, 0.0
        self._began_at = self._shown_at = self._clock()
        self._stop()
        if self._is_live:
            self._progress = _make_progress()
            self._progress.add_task(_short(self._name), total=1.0, rows="", speed="")
            self._progress.start()

    def on_share(self, share: float) -> None:
        self._share = share

    def on_rows(self, rows: int, tokens: int) -> None:
        speed = f"{rows / max(self._clock() - self._began_at, 1e-3):,.0f} rows/s"
        if self._progress is not None:
            (task,) = self._progress.task_ids
            self._progress.update(task, completed=self._share, rows=f"{rows:,} rows", speed=speed)
        elif self._clock() - self._shown_at >= _PLAIN_EVERY_S:
            self._shown_at = self._clock()
            left_s = (self._shown_at - self._began_at) * (1 - self._share) / max(self._share, 1e-3)
            line = f"{self._name}: {rows:,} rows, {self._share:.0%}, {speed}, {left_s:.0f} s left"
            console.print(Text(line), soft_wrap=True)

    def dataset(self, report: DatasetReport, sequence_len: int) -> None:
        self._stop()
        console.print(_panel(report, sequence_len))

    def note(self, text: str) -> None:
        self._stop()
        notice(text)

    def end(self, summary: Summary | None, problems: Sequence[Problem]) -> None:
        self._stop()
        if summary is not None and summary.train.samples:
            console.print(_summary_panel(summary))
        if problems:
            show_error(ConfigError(*problems))
        else:
            console.print("[green]ok[/], no problems found", highlight=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _stop(self) -> None:
        """Take the bar away: what is printed beside it would tear it."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _make_progress() -> "Progress":
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]}", markup=False),
        TextColumn("{task.fields[speed]}", markup=False),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        expand=True,
    )


def _counts(report: DatasetReport) -> dict[str, Any]:  # Any: JSON
    tally = report.tally
    counts: dict[str, Any] = {"rows": tally.rows, "broken": tally.broken, "tokenised": report.is_tokenised}
    if report.is_partial:
        counts["partial"] = True
    if report.is_tokenised:
        counts |= {
            "samples": tally.samples,
            "tokens": tally.tokens,
            "trained_tokens": tally.trained,
            "truncated": tally.truncated,
            "split": tally.split,
            "too_long": tally.too_long,
            "too_short": tally.too_short,
            "duplicates": max(tally.repeated, tally.digests.num_duplicates),
            "untrained_samples": tally.untrained,
            "untrained_turns": tally.untrained_turns,
            "length": {
                "mean": round(tally.lengths.mean, 1),
                **{f"p{percent}": tally.lengths.percentile(percent) for percent in _PERCENTILES},
                "max": tally.lengths.longest,
            },
        }
    return counts


def _panel(report: DatasetReport, sequence_len: int) -> Panel:
    facts = _facts(report, sequence_len) if report.is_tokenised else _untokenised_facts(report)
    title = Text.assemble((report.key, "bold"), f" {_short(report.name)}", (f" {_type(report)}", "dim"))
    border = "red" if report.problems else "green"
    return Panel(_grid(facts), title=title, title_align="left", border_style=border, width=_width())


def _facts(report: DatasetReport, sequence_len: int) -> list[tuple[str, str]]:
    tally = report.tally
    lengths = tally.lengths
    parts = [f"mean {lengths.mean:,.0f}", f"median {lengths.percentile(50):,}"]
    parts += [f"{percent} % up to {lengths.percentile(percent):,}" for percent in _PERCENTILES[1:]]
    left_out = _counted(
        (tally.broken, "broken"),
        (tally.too_long, f"over {sequence_len:,} tokens"),
        (tally.too_short, "too short"),
        (tally.repeated, "duplicate"),
    )
    changed = _counted((tally.truncated, "truncated"), (tally.split, "split"))
    odd = _counted(
        (0 if tally.repeated else tally.digests.num_duplicates, "duplicate"),
        (tally.untrained, "without a trained token"),
        (tally.untrained_turns, "trained turns cut off"),
    )
    facts = [
        ("rows", f"{_rows(report)}, which give {tally.samples:,} samples"),
        ("tokens", f"{tally.tokens:,}, of which {tally.trained:,} trained ({_percent(tally.trained, tally.tokens)})"),
        ("length", ", ".join([*parts, f"longest {lengths.longest:,}"])),
        ("fit", _fits(tally, sequence_len)),
        ("left out", left_out),
        ("cut", changed),
        ("look at", odd),
    ]
    return [(name, value) for name, value in facts if value]


def _fits(tally: Tally, sequence_len: int) -> str:
    """The share of samples that the sequence_len and greater ones hold whole, as far as that makes a difference."""
    sizes = [sequence_len]
    while sizes[-1] < tally.lengths.longest and len(sizes) < _MAX_SIZES:
        sizes.append(1 << sizes[-1].bit_length())
    return ", ".join(f"{tally.lengths.share_within(size):.1%} in {size:,}" for size in sizes)


def _untokenised_facts(report: DatasetReport) -> list[tuple[str, str]]:
    facts = [
        ("rows", f"{_rows(report)} read and rendered, not tokenised"),
        ("left out", _counted((report.tally.broken, "broken"))),
    ]
    return [(name, value) for name, value in facts if value]


def _rows(report: DatasetReport) -> str:
    return f"the first {report.tally.rows:,}" if report.is_partial else f"{report.tally.rows:,}"


def _summary_panel(summary: Summary) -> Panel:
    facts = [("train", _share_text(summary.train))]
    if summary.eval is not None:
        facts.append(("evaluate", _share_text(summary.eval)))
    return Panel(_grid(facts), title="what will be trained", title_align="left", border_style="green", width=_width())


def _share_text(share: Share) -> str:
    trained = f"{share.samples:,} samples, {share.tokens:,} tokens, {_percent(share.trained, share.tokens)} trained"
    return trained if share.packed_rows is None else f"{trained}, at least {share.packed_rows:,} packed rows"


def _grid(facts: Sequence[tuple[str, str]]) -> Group:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in facts:
        grid.add_row(name, Text(value))
    return Group(grid)


def _counted(*counts: tuple[int, str]) -> str:
    return ", ".join(f"{count:,} {what}" for count, what in counts if count)


def _percent(part: int, whole: int) -> str:
    return f"{part / max(whole, 1):.1%}"


def _type(report: DatasetReport) -> str:
    type = report.dataset.section.type
    return type if isinstance(type, str) else "own format" if type else ""


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"...{name[-37:]}"


def _width() -> int:
    return min(console.width, _PANEL_WIDTH)


def _emit(value: dict[str, Any]) -> None:  # Any: JSON
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()
