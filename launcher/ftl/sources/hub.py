"""Dataset repositories of the Hub, read by the `datasets` library at one commit."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ftl.config.data import DatasetSection
from ftl.errors import ConfigError, Problem
from ftl.sources.columnar import Block
from ftl.sources.hubrepo import Repo, ask_hub, check_access, resolve_commit
from ftl.sources.package import missing_package
from ftl.sources.row import Reading, Unread


@dataclass(frozen=True)
class HubShelf:
    """The splits of one configuration of a repository, at one commit."""

    repo: Repo
    revision: str
    name: str | None
    data_files: tuple[str, ...]
    is_streamed: bool
    """Rows are read over the network as they are needed, instead of stored here first."""
    builder: Any = field(compare=False)  # Any: `datasets` is imported only where it is used
    _tables: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def label(self) -> str:
        return self.repo.id

    @property
    def splits(self) -> tuple[str, ...]:
        # Offline the library knows no files any more, only what it has stored.
        return tuple(str(split) for split in self.builder.config.data_files or self.builder.info.splits or ())

    def unread(self, split: str, reading: Reading) -> Iterator[Unread]:
        return self._streamed(split, reading) if self.is_streamed else self._stored(split, reading)

    def count(self, split: str) -> int | None:
        if not self.is_streamed:
            return int(self._table(split).num_rows)
        known = (self.builder.info.splits or {}).get(split)
        return known.num_examples if known else None

    def identity(self, split: str) -> Any:  # Any: JSON
        return [self.repo.id, self.revision, self.name, list(self.data_files), split]

    def _stored(self, split: str, reading: Reading) -> Iterator[Unread]:
        table = self._table(split)
        block, number = Block(table), 0
        reading.share_of_part = lambda: number / max(1, table.num_rows)
        for number in range(1, table.num_rows + 1):
            yield Unread(f"{self.label}[{split}]:{number}", partial(block.row, number - 1))

    def _streamed(self, split: str, reading: Reading) -> Iterator[Unread]:
        total, number = self.count(split), 0
        reading.share_of_part = lambda: min(1.0, number / total) if total else 0.0
        rows, end = self._stream_from(split, 0), object()

        def next_row() -> Any:  # Any: the user's data, or `end`
            nonlocal rows
            try:
                return next(rows, end)
            except Exception:  # a generator that has raised gives nothing more, so the next try needs another
                rows = self._stream_from(split, number)
                raise

        while (row := self._asked(next_row)) is not end:
            number += 1
            yield Unread(f"{self.label}[{split}]:{number}", partial(dict, row))

    def _stream_from(self, split: str, row: int) -> Iterator[Any]:  # Any: the user's data
        """The rows from that one on; nothing is asked of the Hub before the first is taken."""
        yield from self.builder.as_streaming_dataset(split=split).skip(row)

    def _asked(self, call: Callable[[], Any]) -> Any:
        with _in_words(self.repo):
            return ask_hub(self.repo, call)

    def _table(self, split: str) -> Any:  # Any: pyarrow ships no types
        """The rows of a split, stored on this machine by the first call of any process."""
        if split not in self._tables:
            self._asked(self.builder.download_and_prepare)
            self._tables[split] = self.builder.as_dataset(split=split).data.table
        return self._tables[split]


def open_hub(dataset: DatasetSection, *, is_streamed: bool) -> HubShelf:
    """The repository at the commit that `revision` is now. Raises ConfigError and UnreachableError."""
    assert dataset.path is not None
    repo = Repo(dataset.path, dataset.revision)
    datasets = _library(repo)
    commit = resolve_commit(repo)
    with _in_words(repo):
        try:
            builder = ask_hub(
                repo,
                lambda: datasets.load_dataset_builder(
                    repo.id, name=dataset.name, data_files=list(dataset.data_files) or None, revision=commit
                ),
            )
        except ValueError as e:
            names = ask_hub(repo, lambda: datasets.get_dataset_config_names(repo.id, revision=commit))
            if dataset.name in names or (dataset.name is None and len(names) < 2):
                raise ConfigError(Problem(repo.key, f"{repo.id}: cannot be read: {_first_line(e)}")) from e
            given = f"{repo.id} has several configurations" if dataset.name is None else repr(dataset.name)
            raise ConfigError(Problem("name", given, f"must be one of {', '.join(names)}")) from e
    return HubShelf(repo, commit, dataset.name, dataset.data_files, is_streamed, builder)


def _library(repo: Repo) -> Any:  # Any: a module
    try:
        import datasets
    except ImportError as e:
        given = f"{repo.id}: no such file here, and reading Hub datasets needs 'datasets'"
        raise missing_package(repo.key, given) from e
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)  # its errors reach the user as our sentences
    return datasets


@contextmanager
def _in_words(repo: Repo) -> Iterator[None]:
    """Raises ConfigError for what `datasets` cannot read in the repository."""
    from datasets.data_files import EmptyDatasetError
    from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError, DatasetsError

    try:
        yield
    except (EmptyDatasetError, DataFilesNotFoundError) as e:
        raise ConfigError(Problem(repo.key, f"{repo.id}: holds no data files that can be read")) from e
    except RuntimeError as e:
        if "scripts are no longer supported" not in str(e):
            raise
        given = f"{repo.id}: is read by a script of its own, which is not run"
        remedy = "use `revision: refs/convert/parquet` where the Hub has made one, or data_files"
        raise ConfigError(Problem(repo.key, given, None, remedy)) from e
    except DatasetNotFoundError:  # it does not pass on which answer of the Hub it was
        check_access(repo)
        raise
    except DatasetsError as e:
        raise ConfigError(Problem(repo.key, f"{repo.id}: cannot be read: {_first_line(e.__cause__ or e)}")) from e


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
