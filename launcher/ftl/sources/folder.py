"""The data files of a directory, by split: what `datasets` saved there, or what the names say."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ftl.errors import ConfigError, Problem
from ftl.sources.opened import TYPES, DataFile, is_of_type, type_of

ANY_SPLIT = "*"
"""The split of files that are in none: whatever name is asked for is theirs."""

_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}")
_SEPARATORS = re.compile(r"[-._ 0-9]+")
_SPLIT_OF_WORD = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "dev", "val"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
_NO_ROWS = {"config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
Files = dict[str, tuple[DataFile, ...]]


def split_files(directory: Path, ds_type: str | None, label: str) -> Files:
    """The files of each split of a directory. Raises ConfigError when there is none.

    A directory that `save_to_disk` wrote is as it says. Otherwise the splits are told, as the `datasets` library
    does, by shards (name-00000-of-00002), else by directories (train/, test/), else by file names (train.jsonl);
    files that name no split are `train`, unless others do, and the only split if none does.
    """
    saved = _saved_splits(directory, label)
    if saved:
        return saved
    files = _data_files(directory, ds_type, label)
    for name_split in (_shard_split, _directory_split, _file_split):
        splits = [name_split(file.path.relative_to(directory)) for file in files]
        if any(splits):
            return _grouped(files, splits)
    return {ANY_SPLIT: files}


def _grouped(files: tuple[DataFile, ...], splits: list[str | None]) -> Files:
    rest = None if "train" in splits else "train"
    grouped: dict[str, list[DataFile]] = {}
    for file, split in zip(files, splits, strict=True):
        if name := split or rest:
            grouped.setdefault(name, []).append(file)
    return {name: tuple(members) for name, members in grouped.items()}


def _shard_split(path: Path) -> str | None:
    match = _SHARD.fullmatch(path.name.partition(".")[0])
    return match[1] if match else None


def _directory_split(path: Path) -> str | None:
    return next((split for part in path.parts[:-1] if (split := _word_split(part))), None)


def _file_split(path: Path) -> str | None:
    return _word_split(path.name.partition(".")[0])


def _word_split(name: str) -> str | None:
    return next((split for word in _SEPARATORS.split(name) if (split := _SPLIT_OF_WORD.get(word))), None)


def _data_files(directory: Path, ds_type: str | None, label: str) -> tuple[DataFile, ...]:
    """Its files of one type, sorted by path, in all directories below: `ds_type`, else the type most of them are."""
    types = {path: type_of(path) for path in _files_below(directory)}
    wanted = ds_type
    if wanted is None:
        counts = Counter(type for type in types.values() if type)
        wanted = max(counts, key=lambda type: (type != "text", counts[type]), default=None)
    chosen = [path for path, type in types.items() if type and wanted and is_of_type(type, wanted)]
    if not chosen:
        allowed = f"must hold {ds_type} files" if ds_type else f"must hold {', '.join(TYPES)} files"
        raise ConfigError(Problem("path", f"{label}: a directory without data files", allowed))
    names = {path: f"{label}/{path.relative_to(directory).as_posix()}" for path in chosen}
    return tuple(DataFile(path, name, types[path] or wanted or "") for path, name in names.items())


def _files_below(directory: Path) -> Iterator[Path]:
    for path in sorted(directory.rglob("*")):
        parts = path.relative_to(directory).parts
        is_hidden = any(part.startswith((".", "__")) for part in parts)
        if path.is_file() and not is_hidden and path.name not in _NO_ROWS:
            yield path


def _saved_splits(directory: Path, label: str) -> Files:
    """The splits of a Dataset or DatasetDict that `save_to_disk` wrote; empty where it did not."""
    if (directory / "dataset_dict.json").is_file():
        names = _read(directory / "dataset_dict.json", label, lambda content: [str(n) for n in content["splits"]])
        return {name: _saved_files(directory / name, f"{label}/{name}") for name in names}
    return {ANY_SPLIT: _saved_files(directory, label)} if (directory / "state.json").is_file() else {}


def _saved_files(directory: Path, label: str) -> tuple[DataFile, ...]:
    def names(content: Any) -> list[str]:  # Any: what JSON holds
        return [str(entry["filename"]) for entry in content["_data_files"]]

    files = [directory / name for name in _read(directory / "state.json", label, names)]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ConfigError(Problem("path", f"{label}: state.json names {missing[0]}, which is not there"))
    return tuple(DataFile(file, f"{label}/{file.name}", "arrow") for file in files)


def _read(file: Path, label: str, read: Callable[[Any], list[str]]) -> list[str]:  # Any: what JSON holds
    try:
        return read(json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as e:
        given = f"{label}: {file.name} is not what `save_to_disk` of the datasets library writes"
        raise ConfigError(Problem("path", given)) from e
