"""What commands say: notes, tables, the plan of a dry run, and a run followed to its end."""

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from ftl import deliver, jobs, launch
from ftl.backends import Backend
from ftl.bundle import Packed
from ftl.config.load import Loaded
from ftl.console import console, notice, show_error
from ftl.contract import LOG_FILE, RunResult, TaskResult
from ftl.errors import DeliveryError, ExitCode, FtlError, Problem
from ftl.jobs import RunRecord
from ftl.launch import Outcome
from ftl.runview.panels import result_panel, task_panel
from ftl.runview.views import RunView, make_view

if TYPE_CHECKING:
    from ftl.commands.doctor import Finding

_LOG_LINES_SHOWN = 15


@dataclass(frozen=True)
class RunLine:
    """A row of `ftl ps`."""

    record: RunRecord
    state: str
    step: int | None
    max_steps: int | None
    loss: float | None
    message: str | None = None
    """What a run that waits waits for."""


def note(text: str, *, as_json: bool = False) -> None:
    """One line for the user; with `as_json` an object, so that a program's input stays JSON."""
    if as_json:
        emit({"note": text})
    else:
        notice(text)


def detached(record: RunRecord, *, as_json: bool) -> None:
    """Say how to come back to a run that goes on alone."""
    if as_json:
        emit({"run": record.id, "state": "submitted"})
        return
    console.print(f"run [bold]{record.id}[/] goes on without this terminal")
    short = record.id.split("-")[0]
    console.print(f"  ftl attach {short}    follow it again\n  ftl logs {short} -f   its log", highlight=False)
    console.print(
        f"  ftl stop {short}      save a checkpoint and stop\n  ftl pull {short}      fetch the model when it is done",
        highlight=False,
    )


def watch(record: RunRecord, backend: Backend, *, as_json: bool) -> int:
    """Follow a run to its end, deliver its model and show the result; the exit code.

    Ctrl-C stops watching, never the run.
    """
    try:
        outcome, view = follow(record, backend, as_json=as_json)
    except KeyboardInterrupt:
        detached(record, as_json=as_json)
        return ExitCode.DETACHED

    def tell(result: RunResult | TaskResult, where: Path) -> None:
        if isinstance(result, TaskResult):
            console.print(task_panel(result, output=where))
        else:
            console.print(result_panel(result, output=where, train=view.losses.train, evals=view.losses.eval))

    return conclude(outcome, backend, tell, as_json=as_json)


def follow(record: RunRecord, backend: Backend, *, as_json: bool) -> tuple[Outcome, RunView]:
    """Show a run until it has ended; how it stands then, and who has seen its losses. KeyboardInterrupt passes."""
    if not as_json:
        console.print(
            f"run [bold]{record.id}[/] on {record.provider}; Ctrl-C stops following, not the run", highlight=False
        )
    else:
        emit({"run": record.id, "state": "submitted"})
    with make_view(as_json) as view, _noticing_ctrl_c() as sleep:
        return launch.follow(record, backend, view, sleep=sleep), view


def conclude(
    outcome: Outcome, backend: Backend, tell: Callable[[RunResult | TaskResult, Path], None], *, as_json: bool
) -> int:
    """Deliver the model of a run that is done, or say why there is none; the exit code.

    People are told by `tell` what the result is and where it lies.
    """
    record, state = outcome.record, outcome.state
    if outcome.result is None:
        _explain_failure(outcome, backend, as_json=as_json)
        return int(ExitCode.TRAINING if state.exit_code in (None, 0) else state.exit_code)
    try:
        where = deliver.output(record, backend, Path(record.output_dir))
    except FtlError as error:
        show_error(
            DeliveryError(
                Problem(f"run {record.id}", "trained, not delivered", str(error), f"`ftl pull {record.id} DEST`")
            )
        )
        return ExitCode.UNDELIVERED
    if isinstance(outcome.result, TaskResult) and not outcome.result.scores:
        _forget(record)
    is_sent = state.exit_code != ExitCode.UNDELIVERED
    if as_json:
        told = "done" if is_sent else "undelivered"
        emit({"run": record.id, "state": told, "output": str(where), "result": outcome.result.model_dump()})
    else:
        tell(outcome.result, where)
    if is_sent:
        return ExitCode.DONE
    what = state.message or "trained, but not delivered"
    remedy = f"the model is here all the same; `ftl push {record.id.split('-')[0]}` sends it"
    show_error(DeliveryError(Problem(f"run {record.id}", what, None, remedy)))
    return ExitCode.UNDELIVERED


@contextmanager
def _noticing_ctrl_c() -> Iterator[Callable[[float], None]]:
    """A sleep that raises KeyboardInterrupt when Ctrl-C was pressed since, though the exception itself was lost: Python
    drops one that comes up in a finaliser."""
    if signal.getsignal(signal.SIGINT) != signal.default_int_handler:  # ignored, in a shell's background
        yield time.sleep
        return
    was_pressed = False

    def note(number: int, frame: object) -> None:
        nonlocal was_pressed
        was_pressed = True
        raise KeyboardInterrupt

    def sleep(seconds: float) -> None:
        if was_pressed:
            raise KeyboardInterrupt
        time.sleep(seconds)

    signal.signal(signal.SIGINT, note)
    try:
        yield sleep
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _forget(record: RunRecord) -> None:
    """Remove a run whose only result has been delivered: a second copy of a model is worth less than its room."""
    launch.forget(record)
    jobs.delete(record.id)


def _explain_failure(outcome: Outcome, backend: Backend, *, as_json: bool) -> None:
    record, state = outcome.record, outcome.state
    step = deliver.newest_checkpoint(record, backend)
    resumable = state.cause not in ("config", "environment")
    again = f"`ftl resume {record.id.split('-')[0]}`"
    kept = f"no checkpoint was saved; {again} starts from the beginning"
    if step is not None:
        kept = f"the checkpoint of step {step} is verified; {again} goes on from there"
    how = kept if resumable else "mend it and train again"
    if as_json:
        emit(
            {
                "run": record.id,
                "state": state.cause,
                "exit_code": state.exit_code,
                "message": state.message,
                "checkpoint": step,
            }
        )
        return
    if state.cause in ("crash", "killed", "lost", "environment") and record.handle is not None:
        tail = backend.read(record.handle, LOG_FILE, 0).decode(errors="replace").splitlines()[-_LOG_LINES_SHOWN:]
        for line in tail:
            console.print(escape(line), style="dim", highlight=False)
    what = state.message or f"ended: {state.cause}"
    error = FtlError(Problem(f"run {record.id}", what, None, how))
    show_error(error)


def dry_run(loaded: Loaded, packed: Packed, request: dict[str, Any], problems: list[Problem], *, as_json: bool) -> None:
    """Print exactly what `ftl train` would submit."""
    plan: dict[str, Any] = {
        "request": request,
        "config": packed.config.model_dump(mode="json"),
        "bundle": {
            "sha256": packed.bundle.sha256,
            "size_bytes": packed.bundle.size_bytes,
            "files": sorted(packed.digests),
        },
        "problems": [str(problem) for problem in problems],
    }
    if as_json:
        emit(plan)
        return
    from ftl.yamlout import dump

    plan["bundle"]["files"] = [name for name in sorted(packed.digests) if not name.startswith("code/")]
    sys.stdout.write(dump(plan))
    notice(f"dry run of {loaded.path}: nothing was written, nothing was started")


def run_table(lines: list[RunLine], *, as_json: bool) -> None:
    """The table of `ftl ps`."""
    if as_json:
        for line in lines:
            emit(
                {
                    "run": line.record.id,
                    "state": line.state,
                    **({"message": line.message} if line.message else {}),
                    "provider": line.record.provider,
                    "attempts": len(line.record.attempts),
                    "providers": line.record.providers,
                    "step": line.step,
                    "max_steps": line.max_steps,
                    "loss": line.loss,
                    "created_at": line.record.created_at,
                    "config": line.record.config_path,
                }
            )
        return
    if not lines:
        notice("no runs yet; start one with `ftl train CFG`")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "state", "step", "loss", "where", "age"):
        table.add_column(name, overflow="fold", no_wrap=name != "state")
    for line in lines:
        step = "" if line.step is None else f"{line.step}/{line.max_steps}"
        loss = "" if line.loss is None else f"{line.loss:.4f}"
        attempts = len(line.record.attempts)
        places = [name for name, _ in groupby(line.record.providers)] or [line.record.provider]
        where = ", ".join(places) + (f" (attempt {attempts})" if attempts > 1 else "")
        state = f"{line.state}: {line.message}" if line.message else line.state
        table.add_row(line.record.id, escape(state), step, loss, where, _age(line.record.created_at))
    console.print(table)


def findings(found: "list[Finding]", *, as_json: bool) -> None:
    """The list of `ftl doctor`."""
    if as_json:
        for finding in found:
            emit({"name": finding.name, "ok": finding.ok, "text": finding.text})
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in found:
        mark = "[green]ok[/]" if finding.ok else "[yellow]--[/]"
        table.add_row(mark, finding.name, escape(finding.text))
    console.print(table)


def _age(created_at: float) -> str:
    seconds = max(0, int(time.time() - created_at))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def emit(value: dict[str, Any]) -> None:  # Any: what JSON holds
    """One JSON object on a line of its own."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
