"""ftl images: the pinned container images."""

from pathlib import Path
from typing import Annotated

import typer

from ftl.cli.options import AsJson

commands = typer.Typer(no_args_is_help=True, help="Build, list and inspect the pinned container images.")

_Client = Annotated[
    str | None, typer.Option("--client", metavar="DOCKER", help="The docker program; found by itself when left out.")
]


@commands.command("build")
def images_build(
    name: Annotated[str, typer.Argument(metavar="NAME", help="cpu, cuda or cuda-flash.", show_default=False)],
    base: Annotated[
        str | None,
        typer.Option(metavar="IMAGE", help="Another base image than the pinned one, for machines that lack it."),
    ] = None,
    ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificates the build must trust besides the usual ones.")
    ] = None,
    pip_conf: Annotated[Path | None, typer.Option(metavar="FILE", help="A pip.conf for the build only.")] = None,
    wheels: Annotated[Path | None, typer.Option(metavar="DIR", help="Wheels to take before asking an index.")] = None,
    push: Annotated[str | None, typer.Option(metavar="REPO", help="Push it there and print the digest.")] = None,
    client: _Client = None,
) -> None:
    """Build a pinned image: minutes the first time, seconds while its lock is unchanged.

    Examples: `ftl images build cpu`, `ftl images build cuda --push registry.example/ftl`
    """
    from ftl.commands.images import build

    build(name, base=base, ca=ca, pip_conf=pip_conf, wheels=wheels, push=push, client=client)


@commands.command("ls")
def images_ls(client: _Client = None, as_json: AsJson = False) -> None:
    """List the images by name, and the builds that the engine has of each."""
    from ftl.commands.images import ls

    ls(client=client, as_json=as_json)


@commands.command("inspect")
def images_inspect(
    name: Annotated[str, typer.Argument(metavar="NAME", help="cpu, cuda or cuda-flash.", show_default=False)],
    client: _Client = None,
    as_json: AsJson = False,
) -> None:
    """Show what an image is made of: base, lock, labels, and its builds."""
    from ftl.commands.images import inspect

    inspect(name, client=client, as_json=as_json)
