"""The one rich Console, errors and remarks."""

import re
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from ftl.errors import FtlError, Problem
from ftl.redact import redacted

if TYPE_CHECKING:
    pass

_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


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
    _errors.print(Text.assemble(("note: ", "yellow"), clean(text)), soft_wrap=True)


def _problem_text(problem: Problem | str) -> Text:
    if isinstance(problem, str) or not problem.where:
        return Text(clean(str(problem)))
    rest = clean(str(problem))[len(clean(problem.where)) :]
    return Text.assemble((clean(problem.where), "bold"), rest)


def clean(text: str) -> str:
    """The text without what could move the cursor or change colours: it may come from data or a model's code."""
    return redacted(_CONTROLS.sub("", text))
