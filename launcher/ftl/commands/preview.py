"""ftl preview: rows of the data as the model will see them."""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import dropwhile, islice
from pathlib import Path

from ftl.commands.overrides import read_overrides
from ftl.config.load import Loaded, load_train
from ftl.console import notice
from ftl.errors import ConfigError, ExitCode, Problem
from ftl.inspect import previewview
from ftl.inspect.datasets import Listed, listed, open_rows, recipe_of
from ftl.inspect.page import write_page
from ftl.inspect.preview import PreviewRow, preview_row, row_json
from ftl.inspect.tokenizer import load_view
from ftl.inspect.tokentext import TokenTexts
from ftl.inspect.walk import numbered, walk
from ftl.tokens import TokenizerView

_OPTIONS = ("--row", "--dataset", "--ids", "--html", "--set", "--json")


@dataclass(frozen=True)
class _Chosen:
    """Which rows of each dataset: so many from that one on."""

    first: int
    num_rows: int


def run(
    config: Path,
    *,
    flags: list[str],
    assignments: list[str],
    num_rows: int,
    row: int | None,
    dataset: int | None,
    ids: bool,
    html: Path | None,
    as_json: bool,
) -> int:
    """Show the rows, or write them into a page."""
    loaded = load_train(config, read_overrides(flags, assignments, _OPTIONS), bear_unbuilt=True)
    view = load_view(loaded, network=True)
    chosen = _Chosen(0, min(num_rows, sys.maxsize)) if row is None else _Chosen(row, 1)
    shown = [(number, entry, _rows(entry, loaded, view, chosen)) for number, entry in _datasets(loaded, dataset)]
    if html is not None:
        write_page(html, loaded.path, [(entry, list(rows)) for _, entry, rows in shown])
        notice(f"wrote {html}")
    elif as_json:
        _print_json(shown, ids=ids)
    else:
        previewview.show_legend()
        for _, entry, rows in shown:
            previewview.show_heading(entry)
            for each in rows:
                previewview.show_row(each, ids=ids)
    return ExitCode.DONE


def _datasets(loaded: Loaded, wanted: int | None) -> list[tuple[int, Listed]]:
    """The datasets to show, each with its number."""
    entries = list(enumerate(listed(loaded.config.data)))
    if wanted is None:
        return entries
    if wanted >= len(entries):
        raise ConfigError(Problem("--dataset", str(wanted), f"the config has {len(entries)}, counted from 0"))
    return entries[wanted : wanted + 1]


def _rows(entry: Listed, loaded: Loaded, view: TokenizerView, chosen: _Chosen) -> Iterator[PreviewRow]:
    recipe = recipe_of(entry, loaded, view)
    texts = TokenTexts(view)
    rows = numbered(open_rows(entry, loaded).scan())
    taken = islice(dropwhile(lambda pair: pair[0] < chosen.first, rows), chosen.num_rows)
    is_empty = True
    for walked in walk(taken, recipe, view):
        is_empty = False
        yield preview_row(walked, texts, loaded.config.data)
    if is_empty and chosen.first:
        raise ConfigError(Problem("--row", str(chosen.first), f"{entry.name} has no such row, counted from 0"))


def _print_json(shown: list[tuple[int, Listed, Iterator[PreviewRow]]], *, ids: bool) -> None:
    for number, _, rows in shown:
        for row in rows:
            sys.stdout.write(json.dumps(row_json(row, number, ids=ids), ensure_ascii=False) + "\n")
