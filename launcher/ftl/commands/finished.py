"""Tasks on a finished model: a job of one process, on this machine or where a cloud file says, followed to its end."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftl import __version__, bundle, deliver, jobs, precheck
from ftl.backends import Backend
from ftl.bundle import Packed
from ftl.cloudfile import load_cloud
from ftl.commands import show, train
from ftl.commands.prepare import pin_code
from ftl.config.adapter import LoraSection
from ftl.config.load import Loaded
from ftl.config.model import ModelSection
from ftl.config.quantize import QuantSection
from ftl.config.train import TrainConfig
from ftl.contract import JobSpec, Task
from ftl.errors import BackendError, ConfigError, ExitCode, Problem
from ftl.inspect.datasets import located
from ftl.jobs import RunRecord
from ftl.plan import plan
from ftl.references import Reference, locate, may_be_repository, references

ADAPTER_CONFIG = "adapter_config.json"
MODEL_CONFIG = "config.json"
SHARDS = Path("pytorch_model_fsdp_0/.metadata")
"""What tells of weights in shards, below the directory of a model or a checkpoint."""
_TOKENIZER_CONFIG = "tokenizer_config.json"


@dataclass(frozen=True)
class How:
    """How a command is to be done, whatever it does."""

    cloud: Path | None
    detach: bool
    dry_run: bool
    as_json: bool


def start(loaded: Loaded, config: TrainConfig, task: Task, dest: Path, how: How) -> int:
    """Do `task` with the model that `config` names, and put what it makes into `dest`; the exit code.

    `config` is that of `loaded`, pointed at a finished model by `on_adapter` or `on_model`.
    """
    problem = deliver.check_destination(dest, "output_dir")
    refs, missing = references(config, loaded.path)
    problems = [*missing, *precheck.file_problems(config, refs), *([problem] if problem else [])]
    if problems:
        raise ConfigError(*(located(problem, loaded) for problem in problems))
    backend = load_cloud(how.cloud)
    config, notes = pin_code(loaded, config)
    packed = bundle.pack(config, refs)
    run_id = jobs.new_id(f"{task}-{loaded.path.stem}")
    spec = plan(backend.cloud, backend.spec_fields(), run_id=run_id, mounts=packed.mounts)
    spec = JobSpec.model_validate({**spec.model_dump(), "task": task})
    unfit = backend.preflight(spec)
    for note in (*loaded.notes, *notes):
        show.note(note, as_json=how.as_json)
    if how.dry_run:
        request = backend.describe(spec, packed.bundle, jobs.runs_dir() / run_id)
        show.dry_run(loaded, packed, request, unfit, as_json=how.as_json)
        return ExitCode.ENVIRONMENT if unfit else ExitCode.DONE
    if unfit:
        raise BackendError(*unfit)
    record = train.start(_record(loaded, config, backend, spec, packed, refs, dest), packed, backend)
    if how.detach:
        show.detached(record, as_json=how.as_json)
        return ExitCode.DONE
    return show.watch(record, backend, as_json=how.as_json)


def on_adapter(loaded: Loaded, given: Path | None) -> TrainConfig:
    """The config that merges the adapter in `given`, else in the config's output_dir.

    Raises ConfigError where there is none.
    """
    where = "output_dir" if given is None else "--lora-model-dir"
    found = output_dir(loaded) if given is None else locate(str(given), loaded.path)
    if found is None and may_be_repository(str(given)):
        return _with_adapter(loaded.config, str(given))
    if found is None or not found.is_dir():
        remedy = "train first, or name the adapter's directory with --lora-model-dir"
        raise ConfigError(Problem(where, str(found or given), "no such directory", remedy))
    if not (found / ADAPTER_CONFIG).is_file():
        is_whole = (found / MODEL_CONFIG).is_file()
        told = "is a whole model already; there is no adapter in it" if is_whole else f"has no {ADAPTER_CONFIG}"
        raise ConfigError(Problem(where, str(found), told, None if is_whole else "name an adapter's directory"))
    return _with_adapter(loaded.config, str(found))


def on_model(loaded: Loaded, given: str | None, where: str) -> TrainConfig:
    """The config that loads the finished model in `given`, else that in output_dir: a whole one, or an adapter with
    the base of the config. `where` is the key or option that gives it.

    Raises ConfigError where there is none.
    """
    found = output_dir(loaded) if given is None else locate(given, loaded.path)
    if found is None and given is not None and may_be_repository(given):
        return _with_model(loaded.config, given)
    if found is None or not found.is_dir():
        where = "output_dir" if given is None else where
        remedy = "train first" if given is None else "name the directory of a model"
        raise ConfigError(Problem(where, str(found or given), "no such directory", remedy))
    if (found / ADAPTER_CONFIG).is_file():
        return _with_adapter(loaded.config, str(found))
    return _with_model(loaded.config, str(found))


def on_shards(loaded: Loaded, given: Path | None) -> TrainConfig:
    """The config that puts together the shards in `given`, else in output_dir.

    Raises ConfigError where there are none.
    """
    where = "output_dir" if given is None else "--shards-dir"
    found = output_dir(loaded) if given is None else locate(str(given), loaded.path)
    if found is None or not (found / SHARDS).is_file():
        place = found or Path(str(given))
        known = _directories_of_shards(place)
        remedy = f"name one with --shards-dir: {', '.join(known)}" if known else _WITHOUT_SHARDS
        told = "has no weights in shards" if place.is_dir() else "no such directory"
        raise ConfigError(Problem(where, str(place), told, remedy))
    merging = _with_model(loaded.config, str(found))
    own = loaded.config.model
    tokenizer = None if (found / _TOKENIZER_CONFIG).is_file() else own.tokenizer or own.base
    changes: dict[str, Any] = {"tokenizer": tokenizer, "reinit_weights": True}  # Any: fields of a section
    return merging.model_copy(update={"model": merging.model.model_copy(update=changes)})


_WITHOUT_SHARDS = (
    "SHARDED_STATE_DICT as final_state_dict_type of `fsdp_config` writes a model in shards, as state_dict_type "
    "checkpoints, which `ftl pull --checkpoint` copies here"
)


def _directories_of_shards(place: Path) -> list[str]:
    """Those in `place`, and beside it under its name, which have shards."""
    below = sorted(place.glob("*")) if place.is_dir() else []
    beside = sorted(place.parent.glob(f"{place.name}-*")) if place.name else []
    return [str(directory) for directory in (*below, *beside) if (directory / SHARDS).is_file()]


def output_dir(loaded: Loaded) -> Path:
    """Where the config's training puts its model, as an absolute path."""
    given = Path(loaded.config.output.output_dir).expanduser()
    return given if given.is_absolute() else (loaded.path.parent / given).absolute()


def _with_adapter(config: TrainConfig, place: str) -> TrainConfig:
    """`config` without its rows, and with that adapter as it is: its own file says what it is like."""
    kind = config.adapter.kind if config.adapter is not None else "lora"
    return _without_rows(config).model_copy(update={"adapter": LoraSection(kind=kind, initial=place)})


def _with_model(config: TrainConfig, place: str) -> TrainConfig:
    """`config` without its rows, and with that model as it is in place of base and adapter."""
    model = ModelSection(base=place, trust_remote_code=config.model.trust_remote_code)
    changes: dict[str, Any] = {"model": model, "adapter": None, "quant": QuantSection()}  # Any: sections
    return _without_rows(config).model_copy(update=changes)


def _without_rows(config: TrainConfig) -> TrainConfig:
    none: dict[str, Any] = {"datasets": (), "test_datasets": (), "pretraining_dataset": ()}  # Any: fields of a section
    output = config.output.model_copy(update={"resume_from_checkpoint": None})
    return config.model_copy(update={"data": config.data.model_copy(update=none), "output": output})


def _record(
    loaded: Loaded,
    config: TrainConfig,
    backend: Backend,
    spec: JobSpec,
    packed: Packed,
    refs: list[Reference],
    dest: Path,
) -> RunRecord:
    return RunRecord(
        id=spec.run_id,
        name=f"{spec.task} {loaded.path.stem}",
        created_at=time.time(),
        ftl_version=__version__,
        config_path=str(loaded.path.absolute()),
        output_dir=str(dest),
        base_model=next((str(ref.path) for ref in refs if ref.key == "base_model"), config.model.base),
        provider=backend.cloud.provider,
        cloud=backend.cloud.model_dump(mode="json"),
        spec=spec,
        bundle=packed.bundle,
    )
