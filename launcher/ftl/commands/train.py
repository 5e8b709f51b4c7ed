"""ftl train: check everything here, then submit and follow."""

import time
from pathlib import Path

from ftl import __version__, bundle, deliver, jobs, launch, precheck
from ftl.backends import Backend
from ftl.bundle import Packed
from ftl.cloud import CloudSection
from ftl.cloudfile import load_cloud
from ftl.commands import show
from ftl.commands.overrides import read_overrides
from ftl.config.load import Loaded, load_train
from ftl.config.train import TrainConfig
from ftl.contract import JobSpec, Resources, StoreRef
from ftl.errors import BackendError, ConfigError, ExitCode, FtlError, Problem
from ftl.inspect.datacheck import DatasetReport, check_dataset
from ftl.inspect.datasets import is_local, listed, located
from ftl.inspect.tokenizer import NoTokenizerError, load_view
from ftl.jobs import RunRecord
from ftl.plan import plan, stores_of
from ftl.references import Reference, pin_revisions, references

_OPTIONS = ("--cloud", "--set", "--detach", "--dry-run", "--json")
_ROWS_TOKENISED = 1000
"""Of each dataset, so that launching takes a second; `ftl check` tokenises all."""
_ROWS_NAMED = 5
_GENERIC_NAMES = ("cfg", "config", "train", "axolotl")


def run(
    config: Path,
    *,
    flags: list[str],
    assignments: list[str],
    cloud: Path | None,
    detach: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Check, submit and follow one training; the exit code of its outcome."""
    loaded = load_train(config, read_overrides(flags, assignments, _OPTIONS))
    backend = load_cloud(cloud)
    fields = backend.spec_fields()
    stores = stores_of(loaded.config.hub, backend.cloud)
    refs = _references(loaded, fields["resources"], backend.cloud, stores)
    destination = _destination(loaded)
    pinned, notes = _pinned(loaded)
    packed = bundle.pack(pinned, refs)
    run_id = jobs.new_id(_name(loaded.path))
    spec = plan(backend.cloud, fields, run_id=run_id, mounts=packed.mounts, stores=stores)
    problems = backend.preflight(spec)
    for note in [
        *loaded.notes,
        *notes,
        *(f"{path} is left out of the bundle: it may hold a secret" for path in packed.excluded),
    ]:
        show.note(note, as_json=as_json)
    if dry_run:
        show.dry_run(
            loaded, packed, backend.describe(spec, packed.bundle, jobs.runs_dir() / run_id), problems, as_json=as_json
        )
        return ExitCode.ENVIRONMENT if problems else ExitCode.DONE
    if problems:
        raise BackendError(*problems)
    record = _record(loaded, backend, spec, packed, refs, destination)
    return _start(record, backend, detach=detach, as_json=as_json)


def _start(record: RunRecord, backend: Backend, *, detach: bool, as_json: bool) -> int:
    jobs.save(record)
    try:
        record = launch.submit(record, backend)
    except FtlError:
        jobs.delete(record.id)  # nothing was started, so there is nothing to come back to
        raise
    if detach:
        show.detached(record, as_json=as_json)
        return ExitCode.DONE
    return show.watch(record, backend, as_json=as_json)


def _record(
    loaded: Loaded, backend: Backend, spec: JobSpec, packed: Packed, refs: list[Reference], destination: Path
) -> RunRecord:
    return RunRecord(
        id=spec.run_id,
        name=_name(loaded.path),
        created_at=time.time(),
        ftl_version=__version__,
        config_path=str(loaded.path.absolute()),
        output_dir=str(destination),
        base_model=next((str(ref.path) for ref in refs if ref.key == "base_model"), loaded.config.model.base),
        provider=backend.cloud.provider,
        cloud=backend.cloud.model_dump(mode="json"),
        spec=spec,
        bundle=bundle.write(packed),
    )


def _references(
    loaded: Loaded, resources: Resources, cloud: CloudSection, stores: tuple[StoreRef, ...]
) -> list[Reference]:
    """The local files of the config: all there, fit for their use, readable row by row."""
    refs, missing = references(loaded.config, loaded.path)
    unfit = [
        *precheck.problems(loaded.config, refs, resources),
        *precheck.tracker_problems(loaded.config, cloud),
        *precheck.store_problems(stores, cloud),
    ]
    problems = [*(located(problem, loaded) for problem in (*missing, *unfit)), *_data_problems(loaded)]
    if problems:
        raise ConfigError(*problems)
    return refs


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


def _pinned(loaded: Loaded) -> tuple[TrainConfig, list[str]]:
    """The config with its Hub datasets at one commit each, and notes on those that could not be pinned."""
    config, notes, problems = pin_revisions(loaded.config, loaded.path)
    if problems:
        raise ConfigError(*(p if isinstance(p, str) else located(p, loaded) for p in problems))
    return config, notes


def _destination(loaded: Loaded) -> Path:
    """Where the model will go, as an absolute path that can take it."""
    given = Path(loaded.config.output.output_dir).expanduser()
    path = given if given.is_absolute() else (loaded.path.parent / given).absolute()
    problem = deliver.check_destination(path, "output_dir")
    if problem is not None:
        raise ConfigError(located(problem, loaded))
    return path


def _name(path: Path) -> str:
    stem = path.stem.lower()
    return path.absolute().parent.name if stem in _GENERIC_NAMES else stem
