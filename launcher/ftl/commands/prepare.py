"""What is known of a config before anything starts: its files, its rows, its bundle, where the model will go."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from ftl import __version__, bundle, deliver, precheck
from ftl.backends import Backend
from ftl.bundle import Packed
from ftl.cloud import CloudSection
from ftl.config.data import DataSection
from ftl.config.load import Loaded
from ftl.config.model import ModelSection
from ftl.config.train import TrainConfig
from ftl.contract import JobSpec, Resources, StoreRef
from ftl.errors import ConfigError, Problem
from ftl.inspect.datacheck import DatasetReport, check_dataset
from ftl.inspect.datasets import is_local, listed, located
from ftl.inspect.pictures import all_pictures
from ftl.inspect.tokenizer import NoTokenizerError, load_view
from ftl.jobs import RunRecord
from ftl.plan import plan, stores_of
from ftl.references import Reference, pin_revisions, references

_ROWS_TOKENISED = 1000
"""Of each dataset, so that launching takes a second; `ftl check` tokenises all."""
_ROWS_NAMED = 5
_GENERIC_NAMES = ("cfg", "config", "train", "axolotl")


@dataclass(frozen=True)
class Prepared:
    """A config that is ready to be submitted."""

    loaded: Loaded
    packed: Packed
    refs: list[Reference]
    destination: Path
    """Absolute path where the finished model goes."""
    stores: tuple[StoreRef, ...]
    notes: tuple[str, ...]

    def spec(self, backend: Backend, run_id: str) -> JobSpec:
        """The first attempt of a run of it."""
        fields, mounts = backend.spec_fields(), self.packed.mounts
        return plan(backend.cloud, fields, run_id=run_id, mounts=mounts, stores=self.stores)

    def record(self, backend: Backend, spec: JobSpec, *, name: str) -> RunRecord:
        """The record of that run."""
        base = next((str(ref.path) for ref in self.refs if ref.key == "base_model"), self.loaded.config.model.base)
        return RunRecord(
            id=spec.run_id,
            name=name,
            created_at=time.time(),
            ftl_version=__version__,
            config_path=str(self.loaded.path.absolute()),
            output_dir=str(self.destination),
            base_model=base,
            provider=backend.cloud.provider,
            cloud=backend.cloud.model_dump(mode="json"),
            spec=spec,
            bundle=self.packed.bundle,
        )


@dataclass(frozen=True)
class _Pinned:
    """A model and its data with the repositories of the Hub at one commit each."""

    model: ModelSection
    data: DataSection
    notes: list[str]
    """On those that could not be pinned."""


@dataclass
class Preparation:
    """Prepares configs for one backend. What several of them share, their rows and repositories, is looked at once."""

    backend: Backend
    _row_problems: dict[str, list[Problem | str]] = field(default_factory=dict)
    _pinned: dict[str, _Pinned] = field(default_factory=dict)

    def prepare(self, loaded: Loaded, *, below: str = "") -> Prepared:
        """Look at all that can be known here; the model will go to output_dir, or to `below` in it.

        Raises ConfigError with every problem.
        """
        config, key = loaded.config, _identity(loaded.config)
        cloud = self.backend.cloud
        stores = stores_of(config.hub, cloud)
        refs, problems = _references(loaded, self.backend.spec_fields()["resources"], cloud, stores)
        if key not in self._row_problems:
            self._row_problems[key] = _data_problems(loaded)
        problems += self._row_problems[key]
        if problems:
            raise ConfigError(*problems)
        destination = _destination(loaded, below)
        if key not in self._pinned:
            self._pinned[key] = _pin(loaded, config)
        pinned = self._pinned[key]
        resolved = config.model_copy(update={"model": pinned.model, "data": pinned.data})
        packed = bundle.pack(resolved, refs, all_pictures(loaded))
        excluded = (f"{path} is left out of the bundle: it may hold a secret" for path in packed.excluded)
        return Prepared(loaded, packed, refs, destination, stores, (*loaded.notes, *pinned.notes, *excluded))


def name_of(path: Path) -> str:
    """What runs of the config file at `path` are called."""
    stem = path.stem.lower()
    return path.absolute().parent.name if stem in _GENERIC_NAMES else stem


def _references(
    loaded: Loaded, resources: Resources, cloud: CloudSection, stores: tuple[StoreRef, ...]
) -> tuple[list[Reference], list[Problem | str]]:
    """The local files of the config, and what is wrong with them: absent, or not fit for their use."""
    refs, missing = references(loaded.config, loaded.path)
    unfit = [
        *precheck.problems(loaded.config, refs, resources),
        *precheck.tracker_problems(loaded.config, cloud),
        *precheck.ray_problems(loaded.config, cloud),
        *precheck.store_problems(stores, cloud),
    ]
    of_cloud = set(type(cloud).model_fields)  # keys that no config has: the config's file is not theirs
    return refs, [p if p.where in of_cloud else located(p, loaded) for p in (*missing, *unfit)]


def pin_code(loaded: Loaded, config: TrainConfig) -> tuple[TrainConfig, list[str]]:
    """`config`, which is that of `loaded` or made from it, with its repositories pinned if code of them is run.

    With notes. Raises ConfigError where no commit is known.
    """
    if not config.model.trust_remote_code:
        return config, []
    pinned = _pin(loaded, config)
    return config.model_copy(update={"model": pinned.model, "data": pinned.data}), pinned.notes


def _pin(loaded: Loaded, config: TrainConfig) -> _Pinned:
    pinned, notes, problems = pin_revisions(config, loaded.path)
    if problems:
        raise ConfigError(*(p if isinstance(p, str) else located(p, loaded) for p in problems))
    return _Pinned(pinned.model, pinned.data, notes)


def _identity(config: TrainConfig) -> str:
    """All that decides which rows and repositories there are, and what becomes of them."""
    nested = config.model_dump(mode="json", include={"model", "data", "objective"})
    return json.dumps([nested, config.optim.seed], sort_keys=True)


def _data_problems(loaded: Loaded) -> list[Problem | str]:
    """What is wrong with the rows on this machine: every one is read and rendered, the first ones are tokenised."""
    try:
        view = load_view(loaded, network=False)
    except NoTokenizerError:
        view = None  # the runtime can read tokenizers that ftl cannot read here
    except ConfigError as e:
        return list(e.problems)
    problems: list[Problem | str] = []
    for dataset in listed(loaded.config.data):
        try:
            if is_local(dataset, loaded):
                report = DatasetReport(dataset)
                check_dataset(report, loaded, view, limit=_ROWS_NAMED, num_tokenised=_ROWS_TOKENISED)
                problems += report.problems
        except ConfigError as e:
            problems += e.problems
    return problems


def _destination(loaded: Loaded, below: str) -> Path:
    """Where the model will go, as an absolute path that can take it."""
    given = Path(loaded.config.output.output_dir).expanduser()
    path = (given if given.is_absolute() else (loaded.path.parent / given).absolute()) / below
    problem = deliver.check_destination(path, "output_dir")
    if problem is not None:
        raise ConfigError(located(problem, loaded))
    return path
