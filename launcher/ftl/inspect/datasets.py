"""The datasets of a config: their rows, and how those become samples."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from ftl.config.data import DataSection, DatasetSection
from ftl.config.flat import keys
from ftl.config.load import Loaded
from ftl.errors import ConfigError, Problem
from ftl.formats.python import strategy_file, with_strategy_file
from ftl.formats.templates import is_template_path
from ftl.references import locate
from ftl.sources import Source, open_source
from ftl.sources.local import find_local
from ftl.state import cache_dir
from ftl.tokens import Recipe, TokenizerView
from ftl.yamlparse import Loc


@dataclass(frozen=True)
class Listed:
    """A dataset and its place in the config, such as datasets.0."""

    key: str
    section: DatasetSection

    @property
    def name(self) -> str:
        return self.section.path or ", ".join(self.section.data_files)


def listed(data: DataSection) -> list[Listed]:
    """Every dataset of the config, those to train on first."""
    lists = {
        "datasets": data.datasets,
        "pretraining_dataset": data.pretraining_dataset,
        "test_datasets": data.test_datasets,
    }
    return [Listed(f"{key}.{i}", section) for key, sections in lists.items() for i, section in enumerate(sections)]


def is_local(dataset: Listed, loaded: Loaded) -> bool:
    """Whether its rows lie on this machine. Raises ConfigError when they should and do not."""
    try:
        return find_local(dataset.section, _resolve(loaded)) is not None
    except ConfigError as e:
        raise _at(dataset, e, loaded) from e


def open_rows(dataset: Listed, loaded: Loaded, *, is_streamed: bool = False) -> Source:
    """Its rows, from this machine or the network. Raises ConfigError, with the place of the key, if there are none.

    `is_streamed`: those of a Hub repository are read as they are needed, instead of stored first.
    """
    config = loaded.config
    seed = config.optim.seed if config.data.data_seed is None else config.data.data_seed
    downloads = cache_dir() / "downloads"
    try:
        return open_source(
            dataset.section, _resolve(loaded), seed=seed, download_dir=downloads, is_streamed=is_streamed
        )
    except ConfigError as e:
        raise _at(dataset, e, loaded) from e


def recipe_of(dataset: Listed, loaded: Loaded, view: TokenizerView | None) -> Recipe:
    """How the rows become samples. Raises ConfigError, with the place of the key, when `type` or template is wrong."""
    section, data = _with_places(dataset.section, loaded), _with_places(loaded.config.data, loaded)
    try:
        return Recipe.of(section, data, loaded.config.objective.kind, view)
    except ConfigError as e:
        raise _at(dataset, e, loaded) from e


def located(problem: Problem, loaded: Loaded) -> Problem:
    """The problem with the file and line of the key it names, or with the flag that gave it."""
    key, *rest = loc_of(problem.where)
    where = loaded.file.where((loaded.origin.get(str(key), key), *rest))
    return replace(problem, where=where if where.startswith("--") else f"{where}: {problem.where}")


def loc_of(key: str) -> Loc:
    """The place of a key such as datasets.0.path."""
    return tuple(int(part) if part.isdigit() else part for part in key.split("."))


_Templated = TypeVar("_Templated", DatasetSection, DataSection)


def _with_places(section: _Templated, loaded: Loaded) -> _Templated:
    """The section with the files it names where they are: the config may lie elsewhere than the working directory."""
    places = {}
    template = section.chat_template_jinja
    if template and is_template_path(template) and (path := locate(template.strip(), loaded.path)):
        places["chat_template_jinja"] = str(path)
    if isinstance(section, DatasetSection) and isinstance(section.type, str):
        file = strategy_file(section.type)
        if file is not None and (path := locate(file, loaded.path)):
            places["type"] = with_strategy_file(section.type, str(path))
    return section.model_copy(update=places)


def _resolve(loaded: Loaded) -> Callable[[str], Path | None]:
    return lambda path: locate(path, loaded.path)


def _at(dataset: Listed, error: ConfigError, loaded: Loaded) -> ConfigError:
    """The error with its problems placed: one whose `where` is a key, of the dataset or not, gets that key's line."""
    placed = []
    for problem in error.problems:
        if isinstance(problem, str):
            problem = Problem("", problem)
        key = problem.where.partition(" = ")[0]
        top = key.partition(".")[0]
        if top in DatasetSection.model_fields or not problem.where:
            problem = located(replace(problem, where=_full_key(dataset, key)), loaded)
        elif top in keys():
            problem = located(replace(problem, where=key), loaded)
        placed.append(problem)
    return type(error)(*placed)


def _full_key(dataset: Listed, key: str) -> str:
    """The key as it stands in the config. A chat template that the dataset does not name is the whole config's."""
    if key in ("chat_template", "chat_template_jinja"):
        own = next((k for k in (key, "chat_template", "chat_template_jinja") if getattr(dataset.section, k)), None)
        return key if own is None else f"{dataset.key}.{own}"
    return f"{dataset.key}.{key}".rstrip(".")
