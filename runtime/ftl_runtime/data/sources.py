"""A dataset's files to samples, in the order of the files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ftl.errors import ConfigError, Problem
from ftl.formats.example import Example, RowError
from ftl.formats.readers import read_rows
from ftl.tokens import Recipe


@dataclass(frozen=True)
class Source:
    """One dataset of the config: where it is, and how its rows become samples."""

    path: Path
    recipe: Recipe


def read_examples(source: Source) -> Iterator[Example]:
    """The examples of a source. Raises ConfigError that names the file and line of the first broken row."""
    for row in read_rows(source.path):
        try:
            sample = source.recipe.sample(row.data)
        except RowError as e:
            raise ConfigError(Problem(row.where, str(e))) from e
        assert isinstance(sample, Example)
        yield sample
