"""ftl ps, logs, attach, stop, resume, push, pull, rm, gc, reproduce: runs that were launched."""

from pathlib import Path
from typing import Annotated

import typer

from ftl.cli.options import AsJson, Detach, ItsCloudFile, NewestRunId, OtherCloudFile, RunId

commands = typer.Typer()
PANEL = "Follow runs"


@commands.command(rich_help_panel=PANEL)
def ps(
    cloud: Annotated[
        Path | None,
        typer.Option("--cloud", metavar="FILE", help="The runs of that cloud, whoever launched them."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the runs launched from this machine, newest first, or those of a cloud.

    Examples: `ftl ps`, `ftl ps --cloud modal.yml`
    """
    from ftl.commands.jobs import ps as run

    raise typer.Exit(run(cloud=cloud, as_json=as_json))


@commands.command(rich_help_panel=PANEL)
def logs(
    run_id: NewestRunId = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing until the run ends.")] = False,
    cloud: ItsCloudFile = None,
) -> None:
    """Print what a run has written, from its start.

    Examples: `ftl logs`, `ftl logs k3m -f`
    """
    from ftl.commands.jobs import logs as run

    raise typer.Exit(run(run_id, cloud=cloud, follow=follow))


@commands.command(rich_help_panel=PANEL)
def attach(run_id: NewestRunId = None, cloud: ItsCloudFile = None, as_json: AsJson = False) -> None:
    """Follow a run with its progress, as `ftl train` does. Ctrl-C leaves it running."""
    from ftl.commands.jobs import attach as run

    raise typer.Exit(run(run_id, cloud=cloud, as_json=as_json))


@commands.command(rich_help_panel=PANEL)
def stop(
    run_id: RunId,
    now: Annotated[bool, typer.Option("--now", help="Kill it; only checkpoints already saved are left.")] = False,
    cloud: ItsCloudFile = None,
) -> None:
    """Save a checkpoint at the current step, then stop. `ftl resume ID` goes on from there."""
    from ftl.commands.jobs import stop as run

    raise typer.Exit(run(run_id, cloud=cloud, now=now))


@commands.command(rich_help_panel=PANEL)
def resume(
    run_id: RunId,
    cloud: OtherCloudFile = None,
    detach: Detach = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a run that stopped, was preempted or crashed, from its newest verified checkpoint."""
    from ftl.commands.jobs import resume as run

    raise typer.Exit(run(run_id, cloud=cloud, detach=detach, as_json=as_json))


@commands.command(rich_help_panel=PANEL)
def pull(
    run_id: RunId,
    dest: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DEST]", help="A directory; the config's output_dir when left out.", show_default=False
        ),
    ] = None,
    checkpoint: Annotated[
        bool, typer.Option("--checkpoint", help="The newest verified checkpoint, not the finished model.")
    ] = False,
    cloud: ItsCloudFile = None,
) -> None:
    """Copy a run's finished model to this machine and verify every file.

    Examples: `ftl pull k3m`, `ftl pull k3m ./my-model`, `ftl pull k3m --checkpoint`
    """
    from ftl.commands.jobs import pull as run

    raise typer.Exit(run(run_id, dest, cloud=cloud, checkpoint=checkpoint))


@commands.command(rich_help_panel=PANEL)
def push(
    run_id: RunId,
    cloud: OtherCloudFile = None,
    as_json: AsJson = False,
) -> None:
    """Send a finished model to the Hub or bucket that has not got it: after exit code 76."""
    from ftl.commands.jobs import push as run

    raise typer.Exit(run(run_id, cloud=cloud, as_json=as_json))


@commands.command(rich_help_panel=PANEL)
def rm(
    run_id: RunId,
    force: Annotated[bool, typer.Option("--force", help="Also when it is running: kill it first.")] = False,
    cloud: ItsCloudFile = None,
) -> None:
    """Remove a run with its logs, checkpoints and output. A model already copied to output_dir stays."""
    from ftl.commands.jobs import rm as run

    raise typer.Exit(run(run_id, cloud=cloud, force=force))


@commands.command(rich_help_panel=PANEL)
def gc(
    cloud: Annotated[
        Path | None,
        typer.Option(
            "--cloud", metavar="FILE", help="That cloud alone; all that runs of this machine were in when left out."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Give back what runs that have ended no longer need: idle apps, bundles. No run is touched."""
    from ftl.commands.gc import run

    raise typer.Exit(run(cloud=cloud, as_json=as_json))


@commands.command(rich_help_panel=PANEL)
def reproduce(
    source: Annotated[
        str,
        typer.Argument(
            metavar="REPO", help="A repository that ftl delivered to, or an ftl-run.json.", show_default=False
        ),
    ],
    dest: Annotated[
        Path | None,
        typer.Argument(metavar="[DEST]", help="A folder; the name of the run when left out.", show_default=False),
    ] = None,
) -> None:
    """Write the config and cloud file of a published model, and say what of it cannot be pinned any more."""
    from ftl.commands.reproduce import run

    raise typer.Exit(run(source, dest))
