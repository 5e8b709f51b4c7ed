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
    for row, rendered in _render_rows(source):
        yield _example(row, rendered, template)


def _render_rows(source: Source) -> Iterator[tuple[Row, Example | Conversation]]:
    try:
        for row in read_rows(source.path):
            yield row, render(source.type, row.data, source.options)
    except ConfigError as e:  # whoever mends one row wants to know the others too
        raise ConfigError(*check_file(source.path, source.type, source.options)) from e


def _example(row: Row, rendered: Example | Conversation, template: ChatTemplate | None) -> Example:
    if isinstance(rendered, Example):
        return rendered
    assert template is not None, "a source with conversations has a chat template"
    try:
        return template.example(rendered)
    except RowError as e:
        raise ConfigError(Problem(row.where, str(e))) from e
