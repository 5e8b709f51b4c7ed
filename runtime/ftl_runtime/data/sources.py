"""A dataset's files to examples, in the order of the files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ftl.errors import ConfigError, Problem
from ftl.formats.check import check_file
from ftl.formats.example import Conversation, Example, FormatOptions, RowError
from ftl.formats.readers import Row, read_rows
from ftl.formats.render import render
from ftl.tokens import ChatTemplate


@dataclass(frozen=True)
class Source:
    """One dataset of the config: where it is, and all that decides what its rows become."""

    path: Path
    type: str
    options: FormatOptions
    template: str | None
    """The text of the chat template; None for the types that need none."""


def read_examples(source: Source, template: ChatTemplate | None) -> Iterator[Example]:
    """The examples of a source. Raises ConfigError that names the file and line of the first broken rows."""
    for row in _rows(source):
        try:
            rendered = render(source.type, row.data, source.options)
            if isinstance(rendered, Conversation):
                assert template is not None
                rendered = template.example(rendered)
        except RowError as e:
            raise ConfigError(*_broken(source, Problem(row.where, str(e)))) from e
        yield rendered


def _rows(source: Source) -> Iterator[Row]:
    try:
        yield from read_rows(source.path)
    except ConfigError as e:
        raise ConfigError(*_broken(source, *e.problems)) from e


def _broken(source: Source, *found: Problem | str) -> tuple[Problem | str, ...]:
    """All broken rows of the source, counted; `found` where only the chat template can tell."""
    return tuple(check_file(source.path, source.type, source.options)) or found
