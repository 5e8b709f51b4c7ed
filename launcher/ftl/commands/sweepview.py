"""What people and programs see of a sweep: its plan, the run that is trained, the table at the end."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from ftl.commands.show import emit
from ftl.console import console, notice
from ftl.contract import RunResult, TaskResult
from ftl.errors import Problem
from ftl.runview.text import loss_text
from ftl.sweep import Combination, short

_ALL = "combination"
"""The column that stands for all keys."""


@dataclass(frozen=True)
class Row:
    """How one combination stands."""

    combination: Combination
    run_id: str
    state: str
    """new, queued, running, done, stopped, failed: CAUSE, interrupted, not delivered."""
    exit_code: int
    result: RunResult | None


def plan(rows: Sequence[Row], destinations: Sequence[Path], problems: Sequence[Problem], *, as_json: bool) -> None:
    """What the sweep would train, for `--dry-run`."""
    if as_json:
        for row, destination in zip(rows, destinations, strict=True):
            emit({**_facts(row), "output_dir": str(destination), "problems": [str(problem) for problem in problems]})
        return
    table = _table(rows)
    for name in ("state", "run"):
        table.add_column(name, no_wrap=True)
    for row in rows:
        table.add_row(*_values(row, rows), row.state, _short_id(row))
    console.print(table)
    for problem in problems:
        notice(str(problem))
    notice(f"each model goes to a folder of its own in {destinations[0].parent}")
    notice("dry run: nothing was written, nothing was started")


def head(combination: Combination, total: int, run_id: str, *, as_json: bool) -> None:
    """The line above a run."""
    if as_json:
        emit({"combination": combination.number, "of": total, "run": run_id, "settings": combination.values})
    else:
        console.print(f"[bold]{combination.number}/{total}[/]  {escape(combination.label)}", highlight=False)


def done(result: RunResult | TaskResult, where: Path) -> None:
    """The line below a run that was trained."""
    assert isinstance(result, RunResult), "a sweep trains"
    losses = [("loss", result.train_loss_last), ("eval loss", result.eval_loss_last)]
    told = ", ".join(f"{name} {loss_text(loss)}" for name, loss in losses if loss is not None)
    console.print(f"[green]done[/]  {told}  {escape(str(where))}", highlight=False, soft_wrap=True)


def skipped(row: Row, *, as_json: bool) -> None:
    """The line below a run that is left as it is."""
    if not as_json:
        why = "already done" if row.result is not None else f"{row.state}, left alone"
        console.print(f"{why}, run {_short_id(row)}", style="dim", highlight=False)


def left(num_left: int, *, as_json: bool) -> None:
    """Say that a sweep was left by Ctrl-C, and how it goes on."""
    if as_json:
        emit({"state": "detached", "not_started": num_left})
        return
    rest = f"{num_left} combinations were not started. " if num_left != 1 else "1 combination was not started. "
    console.print(f"{rest if num_left else ''}The same command goes on with the sweep", highlight=False)


def table(rows: Sequence[Row], *, as_json: bool) -> None:
    """What came of the sweep. The best is the lowest loss of evaluation, of training where not all were evaluated."""
    best, by = _best(rows)
    if as_json:
        for row in rows:
            emit({**_facts(row), "best": row is best})
        return
    shown = _table(rows)
    for name in ("loss", "eval loss", "steps", "tokens/s"):
        shown.add_column(name, justify="right", no_wrap=True)
    for name in ("state", "run"):
        shown.add_column(name, no_wrap=name == "run")
    for row in rows:
        state = f"{row.state}, best" if row is best else row.state
        cells = (*_values(row, rows), *_measured(row.result), state, _short_id(row))
        shown.add_row(*cells, style="bold green" if row is best else None)
    console.print(shown)
    if best is not None:
        console.print(f"best by {by}: {escape(best.combination.label)}", highlight=False)
    _advise(rows)


def _advise(rows: Sequence[Row]) -> None:
    failed = [row for row in rows if row.state.startswith("failed")]
    if failed:
        run_id = _short_id(failed[0])
        notice(f"{len(failed)} failed: `ftl logs {run_id}` says why, `ftl resume {run_id}` tries it again")
    unsent = [row for row in rows if row.state == "not delivered"]
    if unsent:
        notice(f"{len(unsent)} trained, not delivered: `ftl push ID` or `ftl pull ID DEST` does it")
    unfinished = [row for row in rows if row.state in ("stopped", "interrupted")]
    if unfinished:
        notice(f"{len(unfinished)} not finished: the same command goes on with them")


def _short_id(row: Row) -> str:
    """As much of the id as every command needs."""
    return row.run_id.partition("-")[0]


def _table(rows: Sequence[Row]) -> Table:
    """A table with the columns of the combinations: one for each key that differs, or one for all when that is wide."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("#", justify="right")
    for key in _keys(rows):
        table.add_column(escape(key), overflow="fold")
    return table


def _keys(rows: Sequence[Row]) -> list[str]:
    """The keys that have a column; one name for all of them where their columns would take half of the screen."""
    keys = dict.fromkeys(key for row in rows for key in row.combination.values)
    differing = [key for key in keys if len({_value(row, key) for row in rows}) > 1] or list(keys)
    return differing if sum(len(key) + 2 for key in differing) < console.width / 2 else [_ALL]


def _value(row: Row, key: str) -> str:
    """The value under a key; nothing where this combination leaves it alone."""
    if key == _ALL:
        return row.combination.label
    values = row.combination.values
    return short(values[key]) if key in values else ""


def _values(row: Row, rows: Sequence[Row]) -> list[str]:
    return [str(row.combination.number), *(escape(_value(row, key)) for key in _keys(rows))]


def _measured(result: RunResult | None) -> tuple[str, str, str, str]:
    if result is None:
        return "", "", "", ""
    losses = ("" if loss is None else loss_text(loss) for loss in (result.train_loss_last, result.eval_loss_last))
    train, evaluation = losses
    speed = "" if result.tokens_per_s is None else f"{result.tokens_per_s:,.0f}"
    return train, evaluation, f"{result.steps:,}", speed


def _best(rows: Sequence[Row]) -> tuple[Row | None, str]:
    """The row with the lowest loss and which loss that is; none where fewer than two can be compared."""
    results = [(row, row.result) for row in rows if row.result is not None]
    by_eval = [(result.eval_loss_last, row) for row, result in results]
    by_train = [(result.train_loss_last, row) for row, result in results]
    losses, by = (by_train, "loss") if any(loss is None for loss, _ in by_eval) else (by_eval, "eval loss")
    finite = [(loss, row) for loss, row in losses if loss is not None and math.isfinite(loss)]
    return (min(finite, key=lambda pair: pair[0])[1] if len(finite) > 1 else None), by


def _facts(row: Row) -> dict[str, object]:
    facts: dict[str, object] = {
        "combination": row.combination.number,
        "run": row.run_id,
        "settings": row.combination.values,
        "state": row.state,
        "exit_code": int(row.exit_code),
    }
    if row.result is not None:
        result = row.result
        facts |= {"steps": result.steps, "train_loss": result.train_loss_last, "eval_loss": result.eval_loss_last}
        facts["tokens_per_s"] = result.tokens_per_s
    return facts
