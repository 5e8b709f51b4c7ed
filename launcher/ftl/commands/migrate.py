"""ftl migrate: writes a config in today's spellings, and shows what that changes."""

import difflib
from pathlib import Path

from rich.text import Text

from ftl.atomic import write_atomic
from ftl.commands import show
from ftl.config.load import open_train
from ftl.console import console
from ftl.errors import ConfigError, ExitCode, Problem
from ftl.manual.effect import explain
from ftl.migrate import migrate

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


def run(config: Path, *, write: bool, output: Path | None) -> int:
    """Show the difference; write it over the file, or to `output`, where that is asked for."""
    path = open_train(config).path
    if not path.is_file():
        raise ConfigError(Problem(str(config), "not a file of this machine", remedy="download it, then migrate it"))
    if output is not None and output.exists():
        raise ConfigError(Problem(str(output), "is there already", remedy="give `--output` another name"))
    with path.open(encoding="utf-8-sig", newline="") as stream:
        text = stream.read()
    migrated = migrate(text, str(path))
    _show_difference(text, migrated, path)
    _show_idle_keys(path)
    target = output or (path if write and migrated != text else None)
    if target is not None:
        write_atomic(target, migrated.encode(), like=path)
        show.note(f"{target} is written")
    elif migrated == text:
        show.note(f"{path} is in today's spellings already")
    else:
        show.note("nothing is written; `--write` changes the file, `--output FILE` makes another")
    return ExitCode.DONE


def _show_difference(text: str, migrated: str, path: Path) -> None:
    lines = difflib.unified_diff(text.splitlines(), migrated.splitlines(), str(path), str(path), lineterm="")
    for line in lines:
        is_header = line.startswith(("---", "+++"))
        console.print(Text(line, "bold" if is_header else _COLOURS.get(line[:1], "")), soft_wrap=True)


def _show_idle_keys(path: Path) -> None:
    for effect in explain(path).effects:
        if effect.kind == "ignored":
            show.note(f"{path}:{effect.line}: {effect.name} may be removed: {effect.why}")
