"""ftl doctor, fetch: this machine, and what comes with ftl."""

from pathlib import Path
from typing import Annotated

import typer

from ftl.cli.options import AsJson

commands = typer.Typer()
PANEL = "Set up"


@commands.command(rich_help_panel=PANEL)
def doctor(as_json: AsJson = False) -> None:
    """Say what this machine can do, and what to install for what it cannot."""
    from ftl.commands.doctor import run

    raise typer.Exit(run(as_json=as_json))


@commands.command(rich_help_panel=PANEL)
def fetch(
    name: Annotated[
        str,
        typer.Argument(metavar="cloud_templates|examples|deepspeed_configs", help="What to copy.", show_default=False),
    ],
    dest: Annotated[
        Path | None,
        typer.Argument(metavar="[DEST]", help="A folder; the same name here when left out.", show_default=False),
    ] = None,
) -> None:
    """Copy the cloud templates, examples or settings of DeepSpeed that come with ftl to this folder."""
    from ftl.commands.fetch import run

    raise typer.Exit(run(name, dest))
