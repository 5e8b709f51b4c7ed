"""What people see: the one rich Console, errors, the progress of a run, the panel at its end."""

import re
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ftl.contract import Event, RunResult, Scores, TaskResult
from ftl.errors import FtlError, Problem
from ftl.losschart import Points, loss_chart
from ftl.redact import redacted, redacted_data
from ftl.sampletext import sample_lines

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PANEL_WIDTH = 100
_CHART_HEIGHT = 10
_PLAIN_EVERY_S = 10.0
_ETA_STEPS = 50
_ERROR_OF = "stderr of "
"""How the standard error of a score is named, before the name of the score."""


def _console(*, is_error: bool = False) -> Console:
    stream = sys.stderr if is_error else sys.stdout
    if not (getattr(stream, "encoding", None) or "utf").lower().startswith("utf") and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")  # a name in another script shall not end the program
    return _Console(stderr=is_error, highlight=False)


class _Console(Console):
    """One that leaves it to `cli.main` what happens when nobody reads on, as in `ftl explain cfg.yml | head -1`."""

    def on_broken_pipe(self) -> None:
        raise  # rich calls this where it has caught the BrokenPipeError


console = _console()
"""For what a command was asked for."""
_errors = _console(is_error=True)


def show_error(error: FtlError) -> None:
    """Print the error on stderr, one line a problem."""
    if len(error.problems) == 1:
        _errors.print(Text.assemble(("ftl: ", "bold red"), _problem_text(error.problems[0])), soft_wrap=True)
        return
    _errors.print(Text.assemble(("ftl: ", "bold red"), f"{len(error.problems)} problems"))
    for problem in error.problems:
        _errors.print(Text.assemble("  ", _problem_text(problem)), soft_wrap=True)


def notice(text: str) -> None:
    """Print a remark on stderr, where it does not mix with what the command gives."""
    _errors.print(Text.assemble(("note: ", "yellow"), _clean(text)), soft_wrap=True)


class RunView(Protocol):
    """Shows a run to whoever follows it. The points are gathered for the panel at the end."""

    @property
    def train_points(self) -> Points: ...

    @property
    def eval_points(self) -> Points: ...

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


class _Losses:
    """The losses by step. A step that an attempt repeats after a loss of the machine counts once."""

    def __init__(self) -> None:
        self._train: dict[int, float] = {}
        self._eval: dict[int, float] = {}

    def add(self, event: Event) -> None:
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
        self._losses = _Losses()

    @property
    def train_points(self) -> Points:
        return self._losses.train

    @property
    def eval_points(self) -> Points:
        return self._losses.eval

    def on_event(self, event: Event) -> None:
        self._losses.add(event)
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
        eta = f"ETA {_clock(eta_s)}" if isinstance(eta_s, float | int) else ""
        return cls(f"tokenising {event.data.get('dataset')}", share, f"{rate:,.0f} rows/s", eta)

    def __str__(self) -> str:
        return f"{self.name} {self.share:.0%}  {self.speed}  {self.eta}".rstrip()


class PlainView:
    """Lines for a log file: what happens, and a step at most every ten seconds of the run's own time."""

    def __init__(self) -> None:
        self._losses = _Losses()
        self._eta = _Eta()
        self._shown_at = float("-inf")
        self._phases: set[tuple[int, str]] = set()

    @property
    def train_points(self) -> Points:
        return self._losses.train

    @property
    def eval_points(self) -> Points:
        return self._losses.eval

    def on_event(self, event: Event) -> None:
        self._losses.add(event)
        if event.event == "step":
            self._eta.add(event)
            is_last = event.data.get("step") == event.data.get("max_steps")
            if event.t - self._shown_at >= _PLAIN_EVERY_S or is_last:
                self._shown_at = event.t
                console.print(Text(_step_line(event, self._eta)), soft_wrap=True)
        elif event.event == "phase" and (reading := _Reading.of(event)):
            if event.t - self._shown_at >= _PLAIN_EVERY_S:
                self._shown_at = event.t
                console.print(Text(str(reading)), soft_wrap=True)
        elif event.event == "phase":
            phase = (event.attempt, str(event.data.get("name")))
            if phase not in self._phases and phase[1] not in ("evaluating", "saving"):
                self._phases.add(phase)
                console.print(Text(_PHASES.get(phase[1], phase[1])), soft_wrap=True)
        elif line := _event_line(event):
            console.print(line, soft_wrap=True)

    def on_log(self, line: str) -> None:
        console.print(Text(_clean(line)), soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class LiveView:
    """A bar at the bottom of the terminal; what happens stands above it. The bar goes away at the end."""

    def __init__(self) -> None:
        self._losses = _Losses()
        self._eta = _Eta()
        self._progress = _make_progress()
        self._task = self._progress.add_task("starting", total=None, loss="", speed="", memory="", eta="")
        self._reading: TaskID | None = None
        self._read_name = ""

    @property
    def train_points(self) -> Points:
        return self._losses.train

    @property
    def eval_points(self) -> Points:
        return self._losses.eval

    def on_event(self, event: Event) -> None:
        self._losses.add(event)
        if event.event == "step":
            self._eta.add(event)
            data = event.data
            self._progress.update(
                self._task,
                total=data.get("max_steps"),
                completed=data.get("step", 0),
                loss=f"loss {loss_text(data.get('loss'))}",
                speed=_speed(data.get("tokens_per_s")),
                memory=_memory(data.get("memory_gib")),
                eta=self._eta.text(),
            )
        elif event.event == "phase":
            name = str(event.data.get("name"))
            self._progress.update(self._task, description=_PHASES.get(name, name))
            self._show_reading(_Reading.of(event))
        elif line := _event_line(event):
            self._progress.console.print(line, soft_wrap=True)

    def on_log(self, line: str) -> None:
        self._progress.console.print(Text(_clean(line), "dim"), soft_wrap=True)

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


def loss_text(loss: object) -> str:
    """Four digits behind the point; nan where there is none."""
    return f"{loss:.4f}" if isinstance(loss, int | float) else "nan"


def result_panel(result: RunResult, *, output: Path | None = None, train: Points = (), evals: Points = ()) -> Panel:
    """What a finished training gave, with its loss chart. As wide as the console, up to 100 columns.

    `output` is where the model is on this machine.
    """
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(result, output):
        facts.add_row(name, Text(value, "bold" if "loss" in name else ""))
    parts: list[RenderableType] = [facts]
    if result.scores:
        parts += [Text(), scores_table(result.scores)]
    if train or evals:
        parts += [Text(), _Chart(train, evals)]
    content = Group(*parts)
    title = Text.assemble(("done", "bold green"), f" {result.run_id}")
    return Panel(content, title=title, title_align="left", border_style="green", padding=(1, 2), width=_PANEL_WIDTH)


def task_panel(result: TaskResult, *, output: Path) -> Panel:
    """What a task on a finished model gave, and where that is on this machine."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    made = "results" if result.scores else "model"
    for name, value in (*result.facts.items(), (made, str(output)), ("time", f"{result.seconds:.0f} s")):
        facts.add_row(name, Text(value))
    title = Text.assemble(("done", "bold green"), f" {result.run_id}")
    content = Group(facts, Text(), scores_table(result.scores)) if result.scores else facts
    return Panel(content, title=title, title_align="left", border_style="green", padding=(1, 2), width=_PANEL_WIDTH)


def scores_table(scores: Scores) -> Table:
    """What each task of lm-eval measured, with its standard error where it has one."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("task", "measure", "value", "+/-"):
        table.add_column(name, justify="right" if name in ("value", "+/-") else "left")
    for task, measures in scores.items():
        for name, value in measures.items():
            if not name.startswith(_ERROR_OF):
                error = measures.get(f"{_ERROR_OF}{name}")
                table.add_row(task, name, f"{value:.4f}", "" if error is None else f"{error:.4f}")
    return table


class _Chart:
    """A loss chart as wide as there is room."""

    def __init__(self, train: Points, evals: Points) -> None:
        self._train = train
        self._evals = evals

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield loss_chart(
            self._train,
            evals=self._evals,
            width=options.max_width,
            height=_CHART_HEIGHT,
            is_ascii=options.ascii_only,
        )


class _Eta:
    """How long the rest takes, by the pace of the last steps in the run's own time."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, float]] = deque(maxlen=_ETA_STEPS)
        self._max_steps = 0
        self._attempt = 0

    def add(self, event: Event) -> None:
        if event.attempt != self._attempt:
            self._seen.clear()
            self._attempt = event.attempt
        self._max_steps = event.data.get("max_steps") or 0
        self._seen.append((event.data.get("step", 0), event.t))

    def text(self) -> str:
        (step0, t0), (step1, t1) = self._seen[0], self._seen[-1]
        if step1 <= step0:
            return ""
        return "ETA " + _clock((self._max_steps - step1) * (t1 - t0) / (step1 - step0))


_PHASES = {
    "starting": "starting",
    "data": "reading data",
    "model": "loading model",
    "training": "training",
    "evaluating": "evaluating",
    "saving": "saving",
    "finishing": "finishing",
}
_REASONS = {"signal": "asked to", "deadline": "the time limit is near"}


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


def _step_line(event: Event, eta: _Eta) -> str:
    data = event.data
    parts = [
        f"step {data.get('step')}/{data.get('max_steps')}",
        f"loss {loss_text(data.get('loss'))}",
        _speed(data.get("tokens_per_s")),
        _memory(data.get("memory_gib")),
        eta.text(),
    ]
    return "  ".join(part for part in parts if part)


def _event_line(event: Event) -> Text | None:
    """What an event says to people; None for those shown otherwise."""
    data = event.data
    step = data.get("step")
    match event.event:
        case "eval":
            return Text(f"step {step}: eval loss {loss_text(data.get('loss'))}{_measured(data)}")
        case "samples" if isinstance(data.get("samples"), list):
            lines = [f"step {step}: what the model writes", *map(_clean, sample_lines(data["samples"]))]
            return Text("\n".join(lines))
        case "profile":
            steps = f"steps {data.get('first_step')} to {data.get('last_step')}"
            return Text(f"{steps} were profiled: {data.get('path')}/ of the run's directory")
        case "early_stop":
            since = f"no better {data.get('metric')} than {loss_text(data.get('best'))} of step {data.get('best_step')}"
            return Text(f"step {step}: {since} in {data.get('patience')} evaluations: training ends here")
        case "checkpoint" if data.get("state") == "verified":
            size = f", {data['bytes'] / 2**20:,.1f} MiB" if isinstance(data.get("bytes"), int) else ""
            return Text(f"step {step}: checkpoint saved and verified{size}", "green")
        case "checkpoint" if data.get("state") == "pushed":
            return Text(f"step {step}: checkpoint is in {data.get('store')}, compared", "green")
        case "checkpoint" if data.get("state") == "fetched":
            return Text(f"step {step}: checkpoint fetched from {data.get('store')}")
        case "delivered":
            return Text(f"the model is in {data.get('store')}, compared", "green")
        case "checkpoint" if data.get("state") == "quarantined":
            return Text(f"step {step}: this checkpoint is broken and was set aside", "yellow")
        case "memory" if data.get("recompute") != "none":
            room = f"{data.get('needed_gib')} GiB are needed beside the weights, {data.get('free_gib')} GiB are free"
            return Text(f"activations are recomputed to save memory ({data.get('recompute')}): {room}")
        case "warning":
            return Text.assemble(("warning: ", "yellow"), _clean(str(data.get("message"))))
        case "stopping":
            why = data.get("why") or _REASONS.get(str(data.get("reason")), data.get("reason"))
            return Text(
                f"stopping at step {step}, {_clean(str(why))}" + (": saving" if data.get("saves", True) else "")
            )
        case "stopped":
            newest = data.get("checkpoint")
            return Text(f"stopped at step {step}; " + ("no checkpoint" if newest is None else f"checkpoint {newest}"))
        case "resumed":
            return Text(f"attempt {event.attempt} goes on from the checkpoint of step {step}")
    return None


def _measured(data: Mapping[str, object]) -> str:
    """What an evaluation measured beside the loss."""
    others = {name: value for name, value in data.items() if name not in ("step", "loss")}
    return "".join(f", {name} {value:.4g}" for name, value in others.items() if isinstance(value, int | float))


def _facts(result: RunResult, output: Path | None) -> list[tuple[str, str]]:
    share = result.num_trainable / max(result.num_parameters, 1)
    parameters = f"{result.num_parameters:,}, all trained"
    if result.num_trainable != result.num_parameters:
        parameters = f"{result.num_parameters:,}, of which {result.num_trainable:,} trained ({share:.2%})"
    if result.quantisation:
        parameters += f"; base in {result.quantisation}"
    epochs = "epoch" if result.epochs == 1 else "epochs"
    facts = [
        ("steps", f"{result.steps:,} in {result.epochs:g} {epochs}, {result.tokens:,} tokens"),
        ("train loss", _fall(result.train_loss_first, result.train_loss_last)),
        ("eval loss", _fall(result.eval_loss_first, result.eval_loss_last)),
        ("best", "" if result.best_step is None else f"the model is that of step {result.best_step:,}"),
        ("speed", "" if result.tokens_per_s is None else f"{result.tokens_per_s:,.0f} tokens/s"),
        ("time", _clock(result.seconds) + (f", attempt {result.attempt}" if result.attempt > 1 else "")),
        ("spread", result.spread or ""),
        ("peak memory", _memory(result.peak_memory_gib)),
        ("parameters", parameters),
        ("model", str(output) if output else ""),
    ]
    return [(name, value) for name, value in facts if value]


def _fall(first: float | None, last: float | None) -> str:
    return "" if last is None else f"{loss_text(first)} -> {loss_text(last)}"


def _speed(tokens_per_s: object) -> str:
    if not isinstance(tokens_per_s, int | float):
        return ""
    return f"{tokens_per_s / 1000:.1f}k tok/s" if tokens_per_s >= 10_000 else f"{tokens_per_s:.0f} tok/s"


def _memory(gib: object) -> str:
    return f"{gib:.1f} GiB" if isinstance(gib, int | float) else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _problem_text(problem: Problem | str) -> Text:
    if isinstance(problem, str) or not problem.where:
        return Text(_clean(str(problem)))
    rest = _clean(str(problem))[len(_clean(problem.where)) :]
    return Text.assemble((_clean(problem.where), "bold"), rest)


def _clean(text: str) -> str:
    """The text without what could move the cursor or change colours: it may come from data or a model's code."""
    return redacted(_CONTROLS.sub("", text))
