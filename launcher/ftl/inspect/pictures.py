"""The pictures that rows of local datasets name: found and looked at on this machine, and put into the bundle."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ftl.config.load import Loaded
from ftl.errors import ConfigError, Problem
from ftl.formats.example import Conversation, Example, Picture, Rendered, RowError, Sample
from ftl.inspect.datasets import Listed, is_local, listed, open_rows, recipe_of
from ftl.references import locate
from ftl.sources import Row
from ftl.sources.pictures import fault_of, fault_of_file, locate_picture, name_in_bundle

_SHOWN = 5


@dataclass
class Finder:
    """Finds the pictures of one dataset; each file is looked at once."""

    dataset: str
    """Its key, such as datasets.0."""
    directories: tuple[Path, ...]
    found: dict[str, Path] = field(default_factory=dict)
    """As a row names it -> the file."""
    _faults: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, dataset: Listed, loaded: Loaded) -> "Finder":
        """A relative path is looked for beside the data, then beside the config, then in the working directory."""
        section = dataset.section
        named = [
            path for given in (section.path, *section.data_files) if given and (path := locate(given, loaded.path))
        ]
        beside = [path if path.is_dir() else path.parent for path in named]
        directories = dict.fromkeys(path.absolute() for path in (*beside, loaded.path.parent, Path.cwd()))
        return cls(dataset.key, tuple(directories))

    def fault(self, pictures: tuple[Picture, ...]) -> str | None:
        """What is wrong with the pictures of a row, the first of them that has a fault; None where all are right."""
        return next((fault for picture in pictures if (fault := self._fault(picture))), None)

    def _fault(self, picture: Picture) -> str | None:
        if picture.content is not None:
            fault = fault_of(picture.content)
            return None if fault is None else f"a picture in the row {fault}"
        assert picture.path is not None, "a picture is a path or a content"
        if picture.path not in self._faults and picture.path not in self.found:
            self._look(picture.path)
        return self._faults.get(picture.path)

    def _look(self, given: str) -> None:
        path = locate_picture(given, self.directories)
        if path is None:
            places = ", ".join(str(directory) for directory in self.directories)
            self._faults[given] = f"picture {given}: no such file in {places}"
        elif (fault := fault_of_file(path)) is not None:
            self._faults[given] = f"picture {given} {fault}"
        else:
            self.found[given] = path


def pictures_of(rendered: Rendered | Sample) -> tuple[Picture, ...]:
    return rendered.pictures or () if isinstance(rendered, Conversation | Example) else ()


def all_pictures(loaded: Loaded) -> dict[str, Path]:
    """Place in the bundle -> file, of all pictures that rows of local datasets name.

    Raises ConfigError where one is not there. Rows that are broken in another way say so where they are read.
    """
    files: dict[str, Path] = {}
    problems: list[Problem] = []
    if loaded.config.data.processor is None:
        return files
    for dataset in listed(loaded.config.data):
        if not is_local(dataset, loaded):
            continue
        finder = Finder.of(dataset, loaded)
        problems += _faults(dataset, loaded, finder)
        files |= {name_in_bundle(dataset.key, given): path for given, path in finder.found.items()}
    if problems:
        more = [f"{len(problems) - _SHOWN} more rows have pictures that cannot be used"] * (len(problems) > _SHOWN)
        raise ConfigError(*problems[:_SHOWN], *more)
    return files


def _faults(dataset: Listed, loaded: Loaded, finder: Finder) -> Iterator[Problem]:
    recipe = recipe_of(dataset, loaded, None)
    for row in open_rows(dataset, loaded).scan():
        if not isinstance(row, Row):
            continue
        try:
            pictures = pictures_of(recipe.read(row.data))
        except RowError:
            continue
        if (fault := finder.fault(pictures)) is not None:
            yield Problem(row.where, fault)
