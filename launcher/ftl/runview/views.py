"""Views of a run: JSON lines, plain lines, a live bar."""

import sys
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from rich.text import Text

from ftl.console import clean, console
from ftl.contract import Event
from ftl.losschart import Points
from ftl.redact import redacted_data
from ftl.runview.text import PHASES, Eta, clock_text, event_line, loss_text, memory_text, speed_text, step_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_PLAIN_EVERY_S = 10.0


class RunView(Protocol):
    """Shows a run to whoever follows it. The losses are gathered for the panel at the end."""

    losses: "Losses"

    def on_event(self, event: Event) -> None: ...

    def on_log(self, line: str) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def make_view(json: bool) -> RunView:
    """JSON lines, or a live bar, or plain lines when stdout is not a terminal."""
    if json:
        return JsonView()
    return LiveView() if console.is_terminal else PlainView()


class Losses:
    """The losses by step. A step that an attempt repeats after a loss of the machine counts once."""

    def __init__(self) -> None:
        self._train: dict[int, float] = {}
        self._eval: dict[int, float] = {}

    def add(self, event: Event) -> None:
        if event.event == "history":
            for name, place in (("train", self._train), ("eval", self._eval)):
                place.update({step: float(loss) for step, loss in event.data.get(name, ())})
        kept = {"step": self._train, "eval": self._eval}.get(event.event)
        loss, step = event.data.get("loss"), event.data.get("step")
        if kept is not None and isinstance(loss, int | float) and isinstance(step, int):
            kept[step] = float(loss)

    @property
    def train(self) -> Points:
        return sorted(self._train.items())

    @property
    def eval(self) -> Points:
        return sorted(self._eval.items())


class JsonView:
    """Every event as one JSON object a line, for programs. Log lines are left out: they are in the run's log."""

    def __init__(self) -> None:
        self.losses = Losses()

    def on_event(self, event: Event) -> None:
        self.losses.add(event)
        shown = event.model_copy(update={"data": redacted_data(event.data)})
        sys.stdout.write(shown.model_dump_json() + "\n")
        sys.stdout.flush()

    def on_log(self, line: str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@dataclass(frozen=True)
class _Reading:
    """How far the tokenising of a dataset, or the download of a model, is."""

    name: str
    share: float
    speed: str
    eta: str

    @classmethod
    def of(cls, event: Event) -> Self | None:
        share, rate, eta_s = (event.data.get(name) for name in ("share", "rows_per_s", "eta_s"))
        speed = event.data.get("bytes_per_s")
        if isinstance(share, float | int) and isinstance(speed, float | int):
            return cls(f"downloading {event.data.get('label')}", share, f"{speed / 1e6:,.0f} MB/s", "")
        if not isinstance(share, float | int) or not isinstance(rate, float | int):
            return None
        eta = f"ETA {clock_text(eta_s)}" if isinstance(eta_s, float | int) else ""
        return cls(f"tokenising {event.data.get('dataset')}", share, f"{rate:,.0f} rows/s", eta)

    def __str__(self) -> str:
        return f"{self.name} {self.share:.0%}  {self.speed}  {self.eta}".rstrip()


class PlainView:
    """Lines for a log file: what happens, and a step at most every ten seconds of the run's own time."""

    def __init__(self) -> None:
        self.losses = Losses()
        self._eta = Eta()
        self._shown_at = float("-inf")
        self._phases: set[tuple[int, str]] = set()

    def on_event(self, event: Event) -> None:
        self.losses.add(event)
        if event.event == "step":
            self._eta.add(event)
            is_last = event.data.get("step") == event.data.get("max_steps")
            if event.t - self._shown_at >= _PLAIN_EVERY_S or is_last:
                self._shown_at = event.t
                console.print(Text(step_line(event, self._eta)), soft_wrap=True)
        elif event.event == "phase" and (reading := _Reading.of(event)):
            if event.t - self._shown_at >= _PLAIN_EVERY_S:
                self._shown_at = event.t
                console.print(Text(str(reading)), soft_wrap=True)
        elif event.event == "phase":
            phase = (event.attempt, str(event.data.get("name")))
            if phase not in self._phases and phase[1] not in ("evaluating", "saving"):
                self._phases.add(phase)
                console.print(Text(PHASES.get(phase[1], phase[1])), soft_wrap=True)
        elif line := event_line(event):
            console.print(line, soft_wrap=True)

    def on_log(self, line: str) -> None:
        console.print(Text(clean(line)), soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class LiveView:
    """A bar at the bottom of the terminal; what happens stands above it. The bar goes away at the end."""

    def __init__(self) -> None:
        self.losses = Losses()
        self._eta = Eta()
        self._progress = _make_progress()
        self._task = self._progress.add_task("starting", total=None, loss="", speed="", memory="", eta="")
        self._reading: TaskID | None = None
        self._read_name = ""

    def on_event(self, event: Event) -> None:
        self.losses.add(event)
        if event.event == "step":
            self._eta.add(event)
            data = event.data
            self._progress.update(
                self._task,
                total=data.get("max_steps"),
                completed=data.get("step", 0),
                loss=f"loss {loss_text(data.get('loss'))}",
                speed=speed_text(data.get("tokens_per_s")),
                memory=memory_text(data.get("memory_gib")),
                eta=self._eta.text(),
            )
        elif event.event == "phase":
            name = str(event.data.get("name"))
            self._progress.update(self._task, description=PHASES.get(name, name))
            self._show_reading(_Reading.of(event))
        elif line := event_line(event):
            self._progress.console.print(line, soft_wrap=True)

    def on_log(self, line: str) -> None:
        self._progress.console.print(Text(clean(line), "dim"), soft_wrap=True)

    def _show_reading(self, reading: _Reading | None) -> None:
        """A second bar while a dataset is tokenised."""
        if self._reading is not None and (reading is None or reading.name != self._read_name):
            self._progress.remove_task(self._reading)
            self._reading = None
        if reading is None:
            return
        if self._reading is None:
            self._reading = self._progress.add_task(reading.name, total=100, loss="", speed="", memory="", eta="")
            self._read_name = reading.name
        percent = round(100 * reading.share)
        self._progress.update(self._reading, completed=percent, speed=reading.speed, eta=reading.eta)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()


def _make_progress() -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    def text(field: str) -> TextColumn:
        return TextColumn(f"{{task.fields[{field}]}}", table_column=Column(no_wrap=True), markup=False)

    return Progress(
        TextColumn("{task.description}", table_column=Column(no_wrap=True), markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        *(text(field) for field in ("loss", "speed", "memory", "eta")),
        console=console,
        transient=True,
        expand=True,
    )
