"""The panel at the end of a run."""

from pathlib import Path

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ftl.contract import RunResult, Scores, TaskResult
from ftl.losschart import Points, loss_chart
from ftl.runview.text import clock_text, loss_text, memory_text

_PANEL_WIDTH = 100
_CHART_HEIGHT = 10
_ERROR_OF = "stderr of "
"""How the standard error of a score is named, before the name of the score."""


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
        ("time", clock_text(result.seconds) + (f", attempt {result.attempt}" if result.attempt > 1 else "")),
        ("spread", result.spread or ""),
        ("peak memory", memory_text(result.peak_memory_gib)),
        ("parameters", parameters),
        ("model", str(output) if output else ""),
    ]
    return [(name, value) for name, value in facts if value]


def _fall(first: float | None, last: float | None) -> str:
    return "" if last is None else f"{loss_text(first)} -> {loss_text(last)}"
