"""ftl train, preprocess."""

from pathlib import Path
from typing import Annotated

import typer

from ftl.cli.options import KEYS_AS_FLAGS, AsJson, Assignments, CloudFile, ConfigFile, Detach, DryRun

commands = typer.Typer()
PANEL = "Train"


@commands.command(context_settings=KEYS_AS_FLAGS, rich_help_panel=PANEL)
def train(
    context: typer.Context,
    config: ConfigFile,
    cloud: CloudFile = None,
    assignments: Assignments = None,
    sweep: Annotated[
        Path | None,
        typer.Option(
            "--sweep",
            metavar="FILE",
            help="Train once for each combination of values in this file.",
            show_default=False,
        ),
    ] = None,
    max_usd: Annotated[
        float | None,
        typer.Option(
            "--max-usd",
            metavar="USD",
            help="Save and stop before rented machines have cost more, by their prices at launch.",
            show_default=False,
        ),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(
            "--deadline", metavar="TIME", help="Save and stop after this long: 90m, 12h, 2d.", show_default=False
        ),
    ] = None,
    detach: Detach = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Train what CFG says, and follow it to the end.

    Every config key is also a flag: `--learning-rate 1e-4`, `--no-flash-attention`.
    Ctrl-C stops following, never the training.

    Examples:

    - `ftl train examples/quickstart/cfg.yml`

    - `ftl train cfg.yml --cloud cloud_templates/docker.yml --detach`

    - `ftl train cfg.yml --learning-rate 1e-4 --set datasets.0.path=my.jsonl --dry-run`

    - `ftl train cfg.yml --sweep sweep.yml`
    """
    from functools import partial

    from ftl.commands import sweep as sweeping
    from ftl.commands import train as training

    run = partial(training.run, config) if sweep is None else partial(sweeping.run, config, sweep)
    flags = list(context.args)
    raise typer.Exit(
        run(
            flags=flags,
            assignments=assignments or [],
            cloud=cloud,
            detach=detach,
            dry_run=dry_run,
            as_json=as_json,
            limits=training.limits_of(max_usd, deadline),
        )
    )


@commands.command(context_settings=KEYS_AS_FLAGS, rich_help_panel=PANEL)
def preprocess(
    context: typer.Context,
    config: ConfigFile,
    debug: Annotated[bool, typer.Option("--debug", help="Show documents as token(label, id).")] = False,
    num_examples: Annotated[
        int, typer.Option("--debug-num-examples", metavar="N", min=1, help="With --debug: so many documents.")
    ] = 1,
    text_only: Annotated[bool, typer.Option("--debug-text-only", help="With --debug: without labels and ids.")] = False,
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Tokenise the data of CFG on this machine, without a GPU; `ftl train` then finds its tokens here.

    Every config key is also a flag, as in `ftl train`.

    Examples: `ftl preprocess cfg.yml`, `ftl preprocess cfg.yml --debug --debug-num-examples 5`
    """
    from ftl.commands.preprocess import run

    flags = list(context.args)
    num_shown = num_examples if debug else 0
    raise typer.Exit(
        run(
            config,
            flags=flags,
            assignments=assignments or [],
            num_shown=num_shown,
            text_only=text_only,
            as_json=as_json,
        )
    )
