"""Datasets on this machine: a file, a directory with its splits, or a list of files."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ftl.config.address import is_address
from ftl.config.data import DatasetSection
from ftl.errors import ConfigError, Problem
from ftl.sources.folder import ANY_SPLIT, split_files
from ftl.sources.opened import TYPES, DataFile, is_of_type, type_of
from ftl.sources.row import Reading, Unread

LOADERS = ("json", "csv", "parquet", "arrow", "text")
_SOUGHT_IN = ("json", "parquet", "arrow")
"""Types that are not read from front to back, as a .zst file must be."""
Resolve = Callable[[str], Path | None]


@dataclass(frozen=True)
class LocalShelf:
    """Files by split. The only split of `ANY_SPLIT` may be called by any name."""

    label: str
    files: dict[str, tuple[DataFile, ...]]
    revision: str | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(name for name in self.files if name != ANY_SPLIT)

    def unread(self, split: str, reading: Reading) -> Iterator[Unread]:
        files = self._files(split)
        sizes = [file.path.stat().st_size for file in files]
        total = max(1, sum(sizes))
        for index, file in enumerate(files):
            within = Reading(reading.faults)
            reading.share_of_part = partial(_share, within, sum(sizes[:index]), sizes[index], total)
            yield from file.unread(within)

    def count(self, split: str) -> int | None:
        counts = [file.count() for file in self._files(split)]
        return None if None in counts else sum(count for count in counts if count is not None)

    def identity(self, split: str) -> Any:  # Any: JSON
        return [[file.type, _sha256(file.path)] for file in self._files(split)]

    def renamed(self, names: dict[Path, str]) -> "LocalShelf":
        """The same files, called what the user calls them: local path -> name."""
        label, files = self.label, self.files
        for path, name in names.items():
            label = label.replace(shown(path), name, 1)
            files = {
                split: tuple(replace(file, name=file.name.replace(shown(path), name, 1)) for file in members)
                for split, members in files.items()
            }
        return LocalShelf(label, files)

    def _files(self, split: str) -> tuple[DataFile, ...]:
        return self.files.get(split) or self.files[ANY_SPLIT]


def find_local(dataset: DatasetSection, resolve: Resolve) -> LocalShelf | None:
    """The dataset if it lies on this machine, else None. Raises ConfigError when it does and is not what it must be."""
    listed = find_listed(dataset, resolve)
    if listed is not None:
        is_elsewhere = any(not paths and is_address(given) for given, paths in listed)
        return None if is_elsewhere else _shelf_of(listed, dataset)
    path = resolve(dataset.path) if dataset.path and not dataset.data_files else None
    if path is None:
        return None
    if path.is_dir():
        return LocalShelf(shown(path), split_files(path, dataset.ds_type, shown(path)))
    return LocalShelf(shown(path), {ANY_SPLIT: (data_file(path, dataset.ds_type, "path"),)})


def find_listed(dataset: DatasetSection, resolve: Resolve) -> list[tuple[str, list[Path]]] | None:
    """Each entry of `data_files` with the files it names: one, those that match a pattern, or none.

    None where there is no `data_files`, or it names files of a repository.
    """
    if not dataset.data_files:
        return None
    if dataset.path is None or dataset.path in LOADERS:
        return [(given, _matching(given, resolve)) for given in dataset.data_files]
    directory = resolve(dataset.path)
    if directory is None:
        return None
    return [(given, _matching(given, lambda name: _existing(directory / name))) for given in dataset.data_files]


def looks_local(given: str) -> bool:
    """Whether a path that is not there was meant as a file or directory, rather than as a repository."""
    is_path = given.startswith((".", "/", "~")) or given.count("/") > 1
    return is_path or type_of(Path(given)) is not None


def _share(file: Reading, bytes_before: int, size: int, total: int) -> float:
    return (bytes_before + size * file.share_of_part()) / total


def _shelf_of(listed: list[tuple[str, list[Path]]], dataset: DatasetSection) -> LocalShelf:
    ds_type = dataset.ds_type or (dataset.path if dataset.path in LOADERS else None)
    missing = [Problem("data_files", given, "no such file") for given, paths in listed if not paths]
    if missing:
        raise ConfigError(*missing)
    files = tuple(data_file(path, ds_type, "data_files") for _, paths in listed for path in paths)
    return LocalShelf(_names(files), {ANY_SPLIT: files})


def _existing(path: Path) -> Path | None:
    return path if path.exists() else None


def _matching(given: str, resolve: Resolve) -> list[Path]:
    path = resolve(given)
    if path is not None:
        return [path]
    fixed, pattern = _pattern(given)
    below = resolve(fixed)
    try:
        return sorted(match for match in below.glob(pattern) if match.is_file()) if below and pattern else []
    except ValueError as e:  # "**" beside other characters, which Python 3.13 reads as "*"
        raise ConfigError(Problem("data_files", given, "is no pattern", "write ** as a directory of its own")) from e


def _pattern(given: str) -> tuple[str, str]:
    """The directory before the first part with a wildcard, and the rest; no rest where there is no wildcard."""
    parts = Path(given).parts
    first = next((i for i, part in enumerate(parts) if any(sign in part for sign in "*?[")), len(parts))
    return str(Path(*parts[:first])), "/".join(parts[first:])


def data_file(path: Path, ds_type: str | None, key: str) -> DataFile:
    """The file with its type: what its ending says, unless `ds_type` says otherwise."""
    if path.is_dir():
        raise ConfigError(Problem(key, shown(path), "is a directory", "name its files, or give it as path"))
    if not path.is_file():  # a pipe or a device may never end, and is read more than once
        raise ConfigError(Problem(key, shown(path), "is not a regular file", "write the rows into a file"))
    told = type_of(path)
    if ds_type is None and told is None:
        remedy = "or say what it is with ds_type"
        raise ConfigError(
            Problem(key, shown(path), f"must end in {', '.join(TYPES)} (and .gz, .bz2, .xz, .zst)", remedy)
        )
    type = told if told and (ds_type is None or is_of_type(told, ds_type)) else ds_type
    assert type is not None
    if type in _SOUGHT_IN and path.suffix.lower() == ".zst":
        remedy = f"unpack it: zstd -d {path.name}"
        raise ConfigError(Problem(key, shown(path), f"a .{type} file cannot be read compressed with zstd", remedy))
    return DataFile(path, shown(path), type)


def shown(path: Path) -> str:
    """The path as a user reads it: below the working directory where it is there."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _names(files: tuple[DataFile, ...]) -> str:
    return files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
