"""ftl import: another program's command line or task file as a config."""

from pathlib import Path
from typing import Annotated

import typer

from ftl.cli.options import AsJson

commands = typer.Typer(no_args_is_help=True, help="Turn another program's command line or task file into a config.")

_CommandLine = Annotated[
    str,
    typer.Argument(
        metavar="COMMAND", help="The command in quotes, a file that holds it, or - for stdin.", show_default=False
    ),
]
_Written = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="PATH", help="A folder, or the name of the YAML file.")
]
_Force = Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")]


@commands.command("qlora")
def import_qlora(
    command: _CommandLine, output: _Written = None, force: _Force = False, as_json: AsJson = False
) -> None:
    """From jondurbin/qlora: what its `train.py` is started with.

    Example: `ftl import qlora 'torchrun --nproc_per_node=2 train.py --bits 4 --dataset my.jsonl'`
    """
    from ftl.commands.import_ import run

    raise typer.Exit(run("qlora", command, output=output, force=force, as_json=as_json))


@commands.command("llm-finetuning")
def import_llm_finetuning(
    command: _CommandLine, output: _Written = None, force: _Force = False, as_json: AsJson = False
) -> None:
    """From taprosoft/llm_finetuning: what its `finetune.py` is started with.

    Example: `ftl import llm-finetuning 'python finetune.py --base_model ./model --mode 4'`
    """
    from ftl.commands.import_ import run

    raise typer.Exit(run("llm-finetuning", command, output=output, force=force, as_json=as_json))


@commands.command("dstack")
def import_dstack(
    task: Annotated[
        str, typer.Argument(metavar="FILE", help="A task file, or the dstack command in quotes.", show_default=False)
    ],
    output: _Written = None,
    force: _Force = False,
    as_json: AsJson = False,
) -> None:
    """From dstack: a task that trains an axolotl config, as a cloud file.

    Example: `ftl import dstack train.dstack.yaml -o cloud.yml`
    """
    from ftl.commands.import_ import run

    raise typer.Exit(run("dstack", task, output=output, force=force, as_json=as_json))
