"""From a dataset section to its rows, wherever they are."""

from collections.abc import Callable
from pathlib import Path

from ftl.config.address import is_address
from ftl.config.data import DatasetSection
from ftl.config.split import parse_split
from ftl.errors import ConfigError, Problem
from ftl.sources.hub import open_hub
from ftl.sources.hubrepo import is_repo_id
from ftl.sources.local import LOADERS, Resolve, find_local, looks_local
from ftl.sources.remote import fetch, shown_address
from ftl.sources.source import Shelf, Source
from ftl.state import cache_dir


def open_source(
    dataset: DatasetSection,
    resolve: Resolve,
    *,
    seed: int,
    download_dir: Path | None,
    is_streamed: bool = False,
    called: Callable[[str], str] = lambda given: given,
) -> Source:
    """The rows of one dataset section. `resolve` gives the place of a path of the config, None where there is none, and
    `called` what people call that path where it is not as they wrote it.

    What lies on this machine is found here; what does not is looked up in the network. Files from https:, s3:, gs:
    and hf: addresses are kept below `download_dir`, by default the cache directory of ftl. `is_streamed`: rows of a
    Hub repository are read over the network as they are needed, instead of stored first. Raises ConfigError whose
    Problem names the key, e.g. `split`, and UnreachableError where the network does not answer.
    """
    parts = parse_split(dataset.split)
    shelf = _shelf(dataset, resolve, download_dir or cache_dir() / "downloads", is_streamed, called)
    for part in parts:
        if shelf.splits and part.name not in shelf.splits:
            raise ConfigError(Problem("split", repr(part.name), f"must be one of {', '.join(shelf.splits)}"))
    if not shelf.splits and len({part.name for part in parts}) > 1:
        raise ConfigError(Problem("split", repr(dataset.split), f"{shelf.label} is one split"))
    if dataset.shards is not None and dataset.shards_idx >= dataset.shards:
        raise ConfigError(Problem("shards_idx", str(dataset.shards_idx), f"must be below shards = {dataset.shards}"))
    return Source(shelf, parts, dataset.skip, dataset.shards, dataset.shards_idx, seed)


def _shelf(
    dataset: DatasetSection, resolve: Resolve, download_dir: Path, is_streamed: bool, called: Callable[[str], str]
) -> Shelf:
    names: dict[Path, str] = {}

    def reach(given: str) -> Path | None:
        path = resolve(given)
        if path is None and is_address(given):
            path = fetch(given, download_dir, "path" if given == dataset.path else "data_files")
            names[path] = shown_address(given)
        elif path is not None and called(given) != given:
            names[path] = called(given)
        return path

    local = find_local(dataset, reach)
    if local is not None:
        return local.renamed(names)
    given = dataset.path or ""
    if looks_local(given) or not is_repo_id(given):
        raise ConfigError(Problem("path", given, "no such file or directory"))
    if given in LOADERS:
        raise ConfigError(Problem("path", given, "names a file type", "name the files with data_files"))
    return open_hub(dataset, is_streamed=is_streamed)
