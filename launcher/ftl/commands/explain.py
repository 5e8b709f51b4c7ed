"""ftl explain: what every key of a config does, and the manual page of one key."""

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ftl.console import console
from ftl.errors import ConfigError, ExitCode, Problem
from ftl.manual.effect import Explained, explain, left_out
from ftl.manual.entries import SECTIONS, Entry, find
from ftl.manual.page import page
from ftl.yamlfile import show_value

_COLOURS = {
    "honoured": "green",
    "translated": "cyan",
    "ignored": "yellow",
    "no effect": "yellow",
    "refused": "red",
    "wrong": "bold red",
}


def run(config: Path | None, *, key: str | None, everything: bool, as_json: bool) -> int:
    """Explain one key, or a file with the defaults of what it leaves out: those that do something, or all."""
    if key is not None:
        _show_entry(find(key), as_json=as_json)
    elif config is None:
        raise ConfigError(Problem("ftl explain", "nothing to explain", remedy="give a config, or `--key lora_r`"))
    else:
        explained = explain(config)
        show = _emit_all if as_json else _print_all
        show(explained, left_out(explained, everything=everything))
    return ExitCode.DONE


def _show_entry(entry: Entry, *, as_json: bool) -> None:
    if as_json:
        _emit({"key": entry.name, "table": entry.table, **dict(page(entry))})
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for heading, text in page(entry):
        table.add_row(heading, Text(text))
    console.print(Text(entry.name, "bold"))
    console.print(table)


def _print_all(explained: Explained, defaults: list[Entry]) -> None:
    names = [effect.name for effect in explained.effects] + [entry.name for entry in defaults]
    width = min(max(map(len, names)) + 1, console.width * 2 // 5)
    table = _table(width, "line", "key", "effect", "why")
    for effect in explained.effects:
        line = "" if effect.line is None else str(effect.line)
        table.add_row(
            line, _named(effect.name, effect.value), Text(effect.kind, _COLOURS[effect.kind]), Text(effect.why)
        )
    for other in explained.others:
        table.add_row("", "", Text("wrong", _COLOURS["wrong"]), Text(other))
    console.print(table)
    if defaults:
        console.print(Text("\nleft out, so the default holds", "bold"))
    for section, group in groupby(defaults, key=lambda entry: entry.section):
        table = _table(width, "", "key", "why", has_headings=False)
        for entry in group:
            table.add_row("", _named(entry.name, entry.default), Text(entry.meaning))
        console.print(Text(f"\n{SECTIONS[section or '']}", "dim"))
        console.print(table)


def _table(width: int, *headings: str, has_headings: bool = True) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=has_headings, expand=True)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    by_heading = dict(zip(headings, table.columns, strict=True))
    by_heading["key"].width = width
    by_heading["why"].ratio = 1
    table.columns[0].width = len("line")
    return table


def _named(name: str, value: Any) -> Text:  # Any: what YAML holds
    return Text(f"{name}: ").append("" if value is None else show_value(value), "dim")


def _emit_all(explained: Explained, defaults: list[Entry]) -> None:
    for effect in explained.effects:
        _emit(
            {"key": effect.name, "line": effect.line, "value": effect.value, "effect": effect.kind, "why": effect.why}
        )
    for other in explained.others:
        _emit({"key": None, "effect": "wrong", "why": other})
    for entry in defaults:
        _emit({"key": entry.name, "effect": "default", "value": entry.default, "why": entry.meaning})


def _emit(record: dict[str, Any]) -> None:  # Any: JSON
    sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
