"""Arguments and options that several commands have, each said once."""

from pathlib import Path
from typing import Annotated

import typer

KEYS_AS_FLAGS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Context settings of a command that takes every config key as a flag."""


def _run_ids(incomplete: str) -> list[str]:
    from ftl.completion import run_ids

    return run_ids(incomplete)


RunId = Annotated[
    str,
    typer.Argument(
        metavar="ID", help="The run: any unique beginning of its id.", autocompletion=_run_ids, show_default=False
    ),
]
NewestRunId = Annotated[
    str | None,
    typer.Argument(
        metavar="[ID]", help="The run, the newest when left out.", autocompletion=_run_ids, show_default=False
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Return as soon as the run is accepted.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything and print what would be submitted; start nothing.")
]
ConfigFile = Annotated[
    Path, typer.Argument(metavar="CFG", help="The training config, a YAML file.", show_default=False)
]
CloudFile = Annotated[
    Path | None,
    typer.Option(
        "--cloud", metavar="FILE", help="Where it runs: a cloud file; this machine when left out.", show_default=False
    ),
]
OtherCloudFile = Annotated[
    Path | None,
    typer.Option("--cloud", metavar="FILE", help="Another cloud than the run has been in.", show_default=False),
]
ItsCloudFile = Annotated[
    Path | None,
    typer.Option(
        "--cloud",
        metavar="FILE",
        help="The cloud it is in, for a run that another machine launched.",
        show_default=False,
    ),
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a config key; nested as datasets.0.path=x. Repeatable."),
]
