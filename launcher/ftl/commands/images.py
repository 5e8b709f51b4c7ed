"""`ftl images build|ls|inspect`: the pinned images of this checkout or installation, and what an engine has of them."""

import json
import time
from pathlib import Path

from rich.table import Table
from rich.text import Text

from ftl import image
from ftl.console import console


def build(
    name: str,
    *,
    base: str | None = None,
    ca: Path | None = None,
    pip_conf: Path | None = None,
    wheels: Path | None = None,
    push: str | None = None,
    client: str | None = None,
) -> None:
    """Build the image `name`, showing the build's own lines, and print its id. Raises BackendError when it fails."""
    started = time.monotonic()
    built = image.build(
        name,
        base=base,
        ca=ca,
        pip_conf=pip_conf,
        wheels=wheels,
        push=push,
        client=client,
        on_line=lambda line: console.print(Text(line, style="dim"), soft_wrap=True),
    )
    console.print(f"built {name} in {time.monotonic() - started:.1f} s: {built.tag}", soft_wrap=True)
    console.print(built.id, soft_wrap=True)
    if built.pushed:
        console.print(
            f'pushed; to publish it, write into images.lock.toml: published = "{built.pushed}"', soft_wrap=True
        )


def ls(*, client: str | None = None, as_json: bool = False) -> None:
    """List every name of images.lock.toml and, below it, the builds that the engine has."""
    builds = image.list_images(client)
    if as_json:
        for one in builds:
            console.print(_as_json(one), soft_wrap=True, markup=False)
        return
    table = Table("image", "build", "made", "size", "state", box=None, pad_edge=False)
    for name, recipe in image.recipes().items():
        mine = [one for one in builds if one.name == name]
        for one in mine:
            made, size = one.created[:16].replace("T", " "), f"{one.size_bytes / 2**30:.2f} GiB"
            state = "current" if one.is_current else "outdated: the recipe has changed since"
            table.add_row(name, _short(one.id), made, size, state)
        if not any(one.is_current for one in mine):
            remedy = f"pulled at first use: {recipe.published}" if recipe.published else f"ftl images build {name}"
            table.add_row(name, "-", "-", "-", remedy)
    console.print(table)


def inspect(name: str, *, client: str | None = None, as_json: bool = False) -> None:
    """Show what the image `name` is made of, and the builds of it that the engine has."""
    recipe, builds = image.inspect(name, client)
    facts = {
        "base": recipe.base,
        "lock": recipe.lock,
        "cuda": recipe.cuda,
        "driver": f"{recipe.min_driver} or newer" if recipe.min_driver else "none needed",
        "arguments": ", ".join(f"{key}={value}" for key, value in recipe.args) or "none",
        "recipe": recipe.sha256,
        "published": recipe.published or "not yet",
    }
    if as_json:
        told = {"name": name, **facts, "builds": [json.loads(_as_json(one)) for one in builds]}
        console.print(json.dumps(told), soft_wrap=True, markup=False)
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for key, value in facts.items():
        table.add_row(key, Text(value))
    for one in builds:
        table.add_row("build", Text(f"{one.id}  {one.created[:16]}  {'current' if one.is_current else 'outdated'}"))
        for label, value in sorted(one.labels.items()):
            table.add_row("", Text(f"{label} = {value}", style="dim"))
    console.print(table)


def _short(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:12]


def _as_json(one: image.LocalImage) -> str:
    return json.dumps(
        {
            "id": one.id,
            "name": one.name,
            "created": one.created,
            "size_bytes": one.size_bytes,
            "is_current": one.is_current,
            "labels": one.labels,
        }
    )
