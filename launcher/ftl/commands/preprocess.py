"""ftl preprocess: fill the token cache of this machine, with no GPU and no training."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftl import __version__, bundle, jobs, launch
from ftl.backends import Backend, load
from ftl.bundle import Packed
from ftl.commands import preprocessview, show
from ftl.commands.overrides import read_overrides
from ftl.commands.prepare import pin_code
from ftl.config.load import Loaded, load_train
from ftl.contract import SHOWN_FILE, DatasetUse, Event, JobSpec
from ftl.errors import BackendError, ConfigError, ExitCode, FtlError
from ftl.garbage import save_with_bundle
from ftl.inspect.datasets import listed, located
from ftl.inspect.pictures import all_pictures
from ftl.jobs import RunRecord
from ftl.plan import plan
from ftl.references import references
from ftl.runview.views import RunView, make_view

_OPTIONS = ("--debug", "--debug-num-examples", "--debug-text-only", "--set", "--json")


def run(
    config: Path, *, flags: list[str], assignments: list[str], num_shown: int, text_only: bool, as_json: bool
) -> int:
    """Tokenise what a training of CFG on this machine would, and say what it came to."""
    loaded = load_train(config, read_overrides(flags, assignments, _OPTIONS))
    kind = load("local")
    backend = kind(kind.Cloud(gpu="none"))  # type: ignore[call-arg]  # the local section has it
    for note in loaded.notes:
        show.note(note, as_json=as_json)
    record, packed = _record(loaded, backend, num_shown)
    save_with_bundle(record, packed)
    try:
        names = {entry.key: entry.name for entry in listed(loaded.config.data)}
        return _follow(launch.submit(record, backend), backend, names, text_only=text_only, as_json=as_json)
    finally:
        jobs.delete(record.id)  # all that stays is the cache


def _record(loaded: Loaded, backend: Backend, num_shown: int) -> tuple[RunRecord, Packed]:
    refs, missing = references(loaded.config, loaded.path)
    if missing:
        raise ConfigError(*(located(problem, loaded) for problem in missing))
    config, notes = pin_code(loaded, loaded.config)
    for note in notes:
        show.note(note)
    packed = bundle.pack(config, refs, all_pictures(loaded))
    run_id = jobs.new_id("preprocess")
    spec = plan(backend.cloud, backend.spec_fields(), run_id=run_id, mounts=packed.mounts)
    spec = JobSpec.model_validate({**spec.model_dump(), "task": "preprocess", "num_shown": num_shown})
    problems = backend.preflight(spec)
    if problems:
        raise BackendError(*problems)
    record = RunRecord(
        id=run_id,
        name="preprocess",
        created_at=time.time(),
        ftl_version=__version__,
        config_path=str(loaded.path.absolute()),
        output_dir="",
        provider=backend.cloud.provider,
        cloud=backend.cloud.model_dump(mode="json"),
        spec=spec,
        bundle=packed.bundle,
    )
    return record, packed


@dataclass
class _Watcher:
    """Shows the events of a preparation, and keeps what its data came to."""

    view: RunView
    data: dict[str, Any] = field(default_factory=dict)  # Any: see ftl.contract.Event

    def on_event(self, event: Event) -> None:
        if event.event == "data":
            self.data |= event.data
        self.view.on_event(event)


def _follow(record: RunRecord, backend: Backend, names: Mapping[str, str], *, text_only: bool, as_json: bool) -> int:
    """Watch the preparation to its end and show its result. Ctrl-C ends it: unlike a training it is soon done again."""
    try:
        with make_view(as_json) as view:
            watcher = _Watcher(view)
            outcome = launch.follow(record, backend, watcher)
    except KeyboardInterrupt:
        if record.handle is not None:
            backend.cancel(record.handle, now=True)
        return ExitCode.DETACHED
    state = outcome.state
    if state.exit_code != ExitCode.DONE:
        raise _failure(state.exit_code, state.message or f"ended: {state.cause}")
    assert record.handle is not None
    if not as_json:
        preprocessview.show_data(
            [DatasetUse.read(use) for use in watcher.data.get("datasets", ())], watcher.data, names
        )
    documents = backend.read(record.handle, SHOWN_FILE, 0).decode().splitlines()
    preprocessview.show_documents(documents, text_only=text_only, as_json=as_json)
    return ExitCode.DONE


def _failure(exit_code: int | None, message: str) -> FtlError:
    """What the runtime said, with its exit code."""
    error = FtlError(*message.splitlines())
    error.exit_code = next((code for code in ExitCode if code == exit_code), ExitCode.TRAINING)
    return error
