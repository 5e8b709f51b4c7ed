"""`ftl import`: another program's command line or task file, as a config and a cloud file with a report."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml
from rich.table import Table
from rich.text import Text

from ftl.atomic import write_atomic
from ftl.cloudfile import load_cloud
from ftl.config.load import load_train
from ftl.console import console
from ftl.errors import ConfigError, ExitCode, Problem
from ftl.importers.dstack import import_dstack
from ftl.importers.llm_finetuning import import_llm_finetuning
from ftl.importers.qlora import import_qlora
from ftl.importers.sheet import Imported, Line

_FROM_TEXT: dict[str, Callable[[str], Imported]] = {
    "qlora": import_qlora,
    "llm-finetuning": import_llm_finetuning,
}


def run(program: str, source: str, *, output: Path | None, force: bool, as_json: bool) -> int:
    """Write what `source` stands for, and show what became of each part of it.

    Raises ConfigError when it cannot be read, when a file is in the way, and, after writing, when what it asks for
    contradicts itself.
    """
    if program == "dstack":
        imported, name = import_dstack(source), "dstack"
    else:
        imported, name = _FROM_TEXT[program](_text(source)), program
    files = _files(imported, name, output)
    taken = [path for path in files if path.exists()]
    if taken and not force:
        raise ConfigError(
            *(Problem(str(path), "exists already", remedy="to overwrite it add --force") for path in taken)
        )
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        text = f"# Imported by `ftl import {program}`.\n{yaml.safe_dump(data, sort_keys=False)}"
        write_atomic(path, text.encode())
    unbuilt, problems = _check(imported, files)
    lines = [_marked(line, unbuilt) for line in imported.lines]
    if as_json:
        told = {"files": [str(path) for path in files], "lines": [asdict(line) for line in lines]}
        console.print(json.dumps(told), soft_wrap=True, markup=False)
    else:
        _show(lines, _next(imported, files))
    if problems:
        raise ConfigError(*problems)
    return ExitCode.DONE


def _text(source: str) -> str:
    """The command line itself, or what a file or `-`, the standard input, holds. Raises ConfigError."""
    is_file = "\n" not in source and len(source) < 256 and Path(source).is_file()
    if source != "-" and not is_file:
        return source
    where = "standard input" if source == "-" else source
    try:
        return (sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()).decode()
    except UnicodeDecodeError as e:
        raise ConfigError(Problem(where, f"byte {e.start} is not UTF-8", remedy="save it as UTF-8")) from e
    except OSError as e:
        raise ConfigError(Problem(where, f"cannot be read: {e.strerror}")) from e


def _files(imported: Imported, name: str, output: Path | None) -> dict[Path, dict[str, Any]]:  # Any: what YAML holds
    """Where the config and the cloud file go. `output` is a directory, or the name of the first of them."""
    if output is None or output.suffix not in {".yml", ".yaml"}:
        folder = output or Path()
        config_path, cloud_path = folder / f"{name}.yml", folder / f"{name}-cloud.yml"
    else:
        config_path = output
        cloud_path = output.with_name(f"{output.stem}-cloud.yml") if imported.config else output
    wanted = {config_path: imported.config, cloud_path: imported.cloud}
    return {path: data for path, data in wanted.items() if data}


def _check(imported: Imported, files: dict[Path, dict[str, Any]]) -> tuple[set[str], list[Problem | str]]:
    """The keys that cannot be trained yet, and what is wrong with the files that were written."""
    paths = list(files)
    unbuilt: set[str] = set()
    problems: list[Problem | str] = []
    try:
        if imported.cloud:
            load_cloud(paths[-1])
        if imported.config:
            loaded = load_train(paths[0], bear_unbuilt=True)
            unbuilt = {str(problem.given).partition(" = ")[0].partition(".")[0] for problem in loaded.unbuilt}
    except ConfigError as error:
        problems += error.problems
    return unbuilt, problems


def _marked(line: Line, unbuilt: set[str]) -> Line:
    late = [key for key in line.keys if key in unbuilt]
    if not late:
        return line
    told = "not built yet" if len(line.keys) == 1 else f"not built yet: {', '.join(late)}"
    return replace(line, why="; ".join(part for part in (line.why, told) if part))


def _next(imported: Imported, files: dict[Path, dict[str, Any]]) -> str:
    paths = [str(path) for path in files]
    cloud = f" --cloud {paths[-1]}" if imported.cloud else ""
    return f"ftl train {' '.join(imported.arguments) or paths[0]}{cloud}"


def _show(lines: list[Line], command: str) -> None:
    table = Table("given", "became", "why", box=None, pad_edge=False, header_style="bold")
    for line in lines:
        table.add_row(
            Text(line.given), Text(line.became or "dropped", style="" if line.became else "dim"), Text(line.why)
        )
    console.print(table)
    console.print(Text.assemble("\nnext: ", (command, "bold")), soft_wrap=True)
