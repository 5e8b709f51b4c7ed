"""The command line: options and help text. Each body is one lazy import and one call."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ftl.cli import images, imports, machine, models, reading, runs, training

_OBJECTS_BETWEEN_COLLECTIONS = 100_000
"""Importing makes so many that stay: with Python's 700 a fifth of a command's start goes into looking for garbage."""
_PIPE_EXIT_CODE = 128 + 13  # what a shell says of a program that SIGPIPE has ended


class _UnreadError(Exception):
    """Nobody reads what is printed any more. No OSError, which click would end with 1."""


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:  # Any: typer has a click of its own in some versions
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise _UnreadError from error


app = typer.Typer(
    name="ftl",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Fine-tune language models from one YAML file: on this machine, in a container, or in a cloud.\n\n"
    "Start with `ftl train CFG`. A run goes on when this terminal closes: `ftl ps` lists the runs, "
    "`ftl attach ID` comes back to one, `ftl stop ID` saves a checkpoint and stops it, `ftl resume ID` goes on.",
)
for _group in (training, reading, runs, models, machine):
    app.add_typer(_group.commands)
app.add_typer(images.commands, name="images", rich_help_panel=machine.PANEL)
app.add_typer(imports.commands, name="import", rich_help_panel=reading.PANEL)


def _version(wanted: bool) -> None:
    if wanted:
        from ftl import __version__

        typer.echo(f"ftl {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line. What went wrong in the user's world ends as one sentence and its exit code."""
    import gc
    import os
    import sys

    from ftl.redact import RedactedStream

    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    if sys.stderr is not None:
        sys.stderr = RedactedStream(sys.stderr)  # tracebacks, and logs of libraries
    try:
        try:
            _run()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except (_UnreadError, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains when it flushes at its end
        sys.exit(_PIPE_EXIT_CODE)


def _run() -> None:
    import errno
    import os
    import sys

    from ftl.errors import ExitCode, FtlError

    try:
        app()
    except FtlError as error:
        if os.environ.get("FTL_TRACEBACK") or not str(error):
            raise
        from ftl.console import show_error

        show_error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        if os.environ.get("FTL_TRACEBACK") or (
            error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT)
        ):
            raise
        from ftl.console import show_error
        from ftl.errors import Problem, StorageError

        where = str(error.filename) if error.filename is not None else "writing"
        show_error(StorageError(Problem(where, error.strerror or type(error).__name__)))
        sys.exit(ExitCode.STORAGE)
