"""ftl check, preview, explain, schema, migrate: what a config says, without starting anything."""

from pathlib import Path
from typing import Annotated

import typer

from ftl.cli.options import KEYS_AS_FLAGS, AsJson, Assignments, CloudFile, ConfigFile

commands = typer.Typer()
PANEL = "Look at a config"


@commands.command(context_settings=KEYS_AS_FLAGS, rich_help_panel=PANEL)
def check(
    context: typer.Context,
    config: ConfigFile,
    cloud: CloudFile = None,
    assignments: Assignments = None,
    data: Annotated[bool, typer.Option("--data/--no-data", help="Read, render and tokenise every row.")] = True,
    network: Annotated[
        bool,
        typer.Option("--network/--no-network", help="Look up the repositories and addresses in CFG, read their rows."),
    ] = True,
    all_rows: Annotated[
        bool, typer.Option("--all-rows", help="Read also the rows of large remote datasets to the last one.")
    ] = False,
    max_problems: Annotated[
        int, typer.Option(metavar="N", min=1, help="Broken rows to name for each dataset; the others are counted.")
    ] = 20,
    as_json: AsJson = False,
) -> None:
    """Find out all that is wrong with CFG and its data, here and now; start nothing.

    Every config key is also a flag, as in `ftl train`. Ends with 2 when there is any problem.

    Examples: `ftl check cfg.yml`, `ftl check cfg.yml --cloud cloud.yml --no-network --sequence-len 4096`
    """
    from ftl.commands.check import run

    flags = list(context.args)
    raise typer.Exit(
        run(
            config,
            flags=flags,
            assignments=assignments or [],
            cloud=cloud,
            data=data,
            network=network,
            all_rows=all_rows,
            max_problems=max_problems,
            as_json=as_json,
        )
    )


@commands.command(context_settings=KEYS_AS_FLAGS, rich_help_panel=PANEL)
def preview(
    context: typer.Context,
    config: ConfigFile,
    num_rows: Annotated[int, typer.Option("-n", metavar="N", min=1, help="Rows of each dataset.")] = 3,
    row: Annotated[
        int | None, typer.Option(metavar="I", min=0, help="Only this row of the file, counted from 0.")
    ] = None,
    dataset: Annotated[
        int | None, typer.Option(metavar="K", min=0, help="Only this dataset of the config, counted from 0.")
    ] = None,
    ids: Annotated[bool, typer.Option("--ids", help="Each token as token(label, id).")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a page for a browser instead.", show_default=False)
    ] = None,
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Show rows as the model will see them, with what is trained in green.

    Rows come in the order of the file. Every config key is also a flag, as in `ftl train`.

    Examples: `ftl preview cfg.yml`, `ftl preview cfg.yml --row 41 --ids`, `ftl preview cfg.yml -n 50 --html rows.html`
    """
    from ftl.commands.preview import run

    flags = list(context.args)
    raise typer.Exit(
        run(
            config,
            flags=flags,
            assignments=assignments or [],
            num_rows=num_rows,
            row=row,
            dataset=dataset,
            ids=ids,
            html=html,
            as_json=as_json,
        )
    )


@commands.command(rich_help_panel=PANEL)
def explain(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CFG]", help="The training config.", show_default=False)
    ] = None,
    key: Annotated[str | None, typer.Option(metavar="KEY", help="Show the manual page of this key instead.")] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show every default, not those alone that do something.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say what each key of CFG does: honoured, translated, ignored or refused, and why.

    Examples: `ftl explain cfg.yml`, `ftl explain --key lora_r`, `ftl explain --key datasets.roles_to_train`
    """
    from ftl.commands.explain import run

    raise typer.Exit(run(config, key=key, everything=everything, as_json=as_json))


@commands.command(rich_help_panel=PANEL)
def schema(
    format: Annotated[str, typer.Option(metavar="json|yaml|markdown", help="How to print it.")] = "json",
    field: Annotated[str | None, typer.Option(metavar="KEY", help="Only this key.")] = None,
) -> None:
    """Print the keys of a config: a JSON Schema for editors, or the reference in Markdown.

    With `ftl schema > ftl.schema.json` and the line `# yaml-language-server: $schema=ftl.schema.json` at the top of
    a config, an editor completes and checks its keys.
    """
    from ftl.commands.schema import run

    raise typer.Exit(run(format, field=field))


@commands.command(rich_help_panel=PANEL)
def migrate(
    config: Annotated[Path, typer.Argument(metavar="CFG", help="The training config.", show_default=False)],
    write: Annotated[bool, typer.Option("--write", help="Change the file itself.")] = False,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a new file, and leave CFG as it is.")
    ] = None,
) -> None:
    """Show CFG in today's spellings, as a difference. Comments, order and blank lines are kept.

    Examples: `ftl migrate cfg.yml`, `ftl migrate cfg.yml --write`
    """
    from ftl.commands.migrate import run

    raise typer.Exit(run(config, write=write, output=output))


@commands.command(context_settings=KEYS_AS_FLAGS, rich_help_panel=PANEL)
def render(
    context: typer.Context,
    config: ConfigFile,
    to: Annotated[
        str,
        typer.Option("--to", metavar="sky|modal|docker|dstack|kubernetes", help="Whose task.", show_default=False),
    ],
    cloud: CloudFile = None,
    assignments: Assignments = None,
) -> None:
    """Print the exact task that would be submitted, to take it elsewhere; start nothing.

    sky, modal and docker print what `ftl train` with that cloud file submits; dstack and kubernetes write the same job
    for tools that ftl does not drive.

    Examples: `ftl render cfg.yml --cloud aws.yml --to sky`, `ftl render cfg.yml --cloud aws.yml --to dstack`
    """
    from ftl.commands.render import run

    flags = list(context.args)
    raise typer.Exit(run(config, flags=flags, assignments=assignments or [], cloud=cloud, target=to))
