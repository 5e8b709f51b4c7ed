"""ftl train --sweep: one run for each combination of values, one after another; the same command goes on."""

import fcntl
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from ftl import jobs, launch
from ftl.backends import Backend
from ftl.cloudfile import NO_LIMITS, Limits, load_cloud
from ftl.commands import show, sweepview
from ftl.commands.overrides import read_overrides
from ftl.commands.prepare import Preparation, Prepared, name_of
from ftl.commands.sweepview import Row
from ftl.commands.train import OPTIONS, start
from ftl.config.load import load_train
from ftl.console import show_error
from ftl.contract import BUNDLE_FILES, HubRef, JobSpec, JobState, RunResult, TaskResult
from ftl.errors import BackendError, ConfigError, ExitCode, FtlError, Problem, RunError
from ftl.jobs import RunRecord
from ftl.launch import Outcome, backend_of
from ftl.state import make_private, state_dir
from ftl.sweep import Combination, read_sweep

_GOES_ON = ("signal", "deadline", "killed", "lost", "storage", "environment")
"""Causes after which the same command starts a run again. A crash would only happen again: `ftl resume` tries it."""
_GENERIC_NAMES = ("sweep", "sweeps")


@dataclass(frozen=True)
class Planned:
    """A combination that is ready to be submitted."""

    combination: Combination
    prepared: Prepared
    spec: JobSpec


def run(
    config: Path,
    sweep: Path,
    *,
    flags: list[str],
    assignments: list[str],
    cloud: Path | None,
    detach: bool,
    dry_run: bool,
    as_json: bool,
    limits: Limits = NO_LIMITS,
) -> int:
    """Check every combination, then train one after another; the exit code of the first that failed."""
    if detach:
        remedy = "leave it out; to close this terminal meanwhile use nohup or tmux"
        raise ConfigError(Problem("--detach", "given together with --sweep", "a sweep starts its runs itself", remedy))
    overrides = read_overrides(flags, assignments, OPTIONS)
    combinations = read_sweep(sweep)
    _check_overrides(overrides, combinations)
    backend = load_cloud(cloud, limits)
    planned, notes = _plan_all(config, overrides, combinations, backend, _name(sweep, config))
    _check_stores(planned)
    for note in notes:
        show.note(note, as_json=as_json)
    problems = _preflight(planned, backend)
    if dry_run:
        rows = [_row(plan, *_standing(plan.spec.run_id)) for plan in planned]
        sweepview.plan(rows, [plan.prepared.destination for plan in planned], problems, as_json=as_json)
        return ExitCode.ENVIRONMENT if problems else ExitCode.DONE
    if problems:
        raise BackendError(*problems)
    with _alone(sweep, config):
        return _train_all(planned, backend, as_json=as_json)


def _check_overrides(overrides: Sequence[tuple[str, str]], combinations: Sequence[Combination]) -> None:
    swept = {setting.key.replace("-", "_"): setting.origin for each in combinations for setting in each.settings}
    twice = [
        Problem(f"--{key.replace('_', '-')}", "is also in the sweep", swept[key], "leave it out here or there")
        for key, _ in overrides
        if key in swept
    ]
    if twice:
        raise ConfigError(*twice)


def _name(sweep: Path, config: Path) -> str:
    return f"{name_of(config)}-sweep" if sweep.stem.lower() in _GENERIC_NAMES else sweep.stem


def _plan_all(
    config: Path,
    overrides: Sequence[tuple[str, str]],
    combinations: Sequence[Combination],
    backend: Backend,
    name: str,
) -> tuple[list[Planned], list[str]]:
    """Every combination ready to be submitted, and notes. Raises ConfigError with the problems of all of them."""
    preparation, planned = Preparation(backend), []
    problems: dict[Problem | str, list[Combination]] = {}
    notes: dict[Problem | str, list[Combination]] = {}
    for combination in combinations:
        try:
            loaded = load_train(config, overrides, settings=combination.settings)
            prepared = preparation.prepare(loaded, below=combination.slug)
        except ConfigError as e:
            for problem in e.problems:
                problems.setdefault(problem, []).append(combination)
            continue
        for note in prepared.notes:
            notes.setdefault(note, []).append(combination)
        run_id = jobs.id_from(name, _identity(prepared, backend))
        planned.append(Planned(combination, prepared, prepared.spec(backend, run_id)))
    if problems:
        raise ConfigError(*(_told(problem, of, len(combinations)) for problem, of in problems.items()))
    return planned, [str(_told(note, of, len(combinations))) for note, of in notes.items()]


def _told(problem: Problem | str, of: Sequence[Combination], total: int) -> Problem:
    """The problem, and which combinations have it unless all do."""
    where = problem.where if isinstance(problem, Problem) else ""
    rest = str(problem)[len(where) :].removeprefix(": ")
    if len(of) == 1 < total:
        rest += f" (combination {of[0].number}: {of[0].label})"
    elif len(of) < total:
        rest += f" (combinations {', '.join(str(each.number) for each in of)})"
    return Problem(where, rest)


def _identity(prepared: Prepared, backend: Backend) -> bytes:
    """What makes it this run and no other: what the user wrote, and the content of the files that it names.

    Not the commits of repositories, nor the code of ftl: with newer ones a finished run is finished all the same.
    """
    packed = prepared.packed
    files = {name: digest for name, digest in packed.digests.items() if name.startswith(BUNDLE_FILES)}
    mounts = sorted(mount.fingerprint for mount in packed.mounts)
    written = prepared.loaded.file.data
    named = [str(prepared.loaded.path.absolute()), written, files, mounts, backend.cloud.provider]
    return json.dumps(named, sort_keys=True).encode()


def _check_stores(planned: Sequence[Planned]) -> None:
    """Raises ConfigError where two runs would go to the same place on the Hub."""
    places: dict[tuple[str, str | None], list[int]] = {}
    for plan in planned:
        for store in plan.prepared.stores:
            if isinstance(store, HubRef):
                places.setdefault((store.repo, store.branch), []).append(plan.combination.number)
    remedy = "give each a `hub_revision` or a `hub_model_id` of its own under `_`, or set push_to_hub: false"
    shared = {repo: numbers for (repo, _), numbers in places.items() if len(numbers) > 1}
    if shared:
        raise ConfigError(
            *(
                Problem("hub_model_id", repo, f"combinations {', '.join(map(str, numbers))} would all go there", remedy)
                for repo, numbers in shared.items()
            )
        )


def _preflight(planned: Sequence[Planned], backend: Backend) -> list[Problem]:
    """What the backend finds, asked once for all jobs that are alike."""
    specs = {plan.spec.model_copy(update={"run_id": ""}).model_dump_json(): plan.spec for plan in planned}
    return list(dict.fromkeys(problem for spec in specs.values() for problem in backend.preflight(spec)))


@contextmanager
def _alone(sweep: Path, config: Path) -> Iterator[None]:
    """Raises RunError while another process leads the same sweep: both would start the same runs."""
    key = hashlib.sha256(f"{sweep.absolute()}\n{config.absolute()}".encode()).hexdigest()[:16]
    with (make_private(state_dir() / "sweeps") / f"{key}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            remedy = "`ftl attach` follows its newest run"
            raise RunError(Problem(str(sweep), "another ftl leads this sweep already", None, remedy)) from None
        yield


def _train_all(planned: Sequence[Planned], backend: Backend, *, as_json: bool) -> int:
    rows: list[Row] = []
    for plan in planned:
        sweepview.head(plan.combination, len(planned), plan.spec.run_id, as_json=as_json)
        try:
            rows.append(_train(plan, backend, as_json=as_json))
        except KeyboardInterrupt:
            sweepview.left(len(planned) - plan.combination.number, as_json=as_json)
            return ExitCode.DETACHED
    sweepview.table(rows, as_json=as_json)
    codes = [row.exit_code for row in rows if row.exit_code != ExitCode.DONE]
    return next((code for code in codes if code != ExitCode.PREEMPTED), codes[0] if codes else ExitCode.DONE)


def _train(plan: Planned, backend: Backend, *, as_json: bool) -> Row:
    """Lead one combination to its end: start it, follow it, go on with it, or leave it as it is."""
    record, state, result = _standing(plan.spec.run_id)
    try:
        if record is None:
            new = plan.prepared.record(backend, plan.spec, name=plan.spec.run_id.partition("-")[2])
            record = start(new, plan.prepared.packed, backend)
        elif _is_settled(record, state, result):
            row = _row(plan, record, state, result)
            sweepview.skipped(row, as_json=as_json)
            return row
        elif state is not None and state.phase == "ended" and result is None:
            record = _again(record)
        own = backend_of(record)
        outcome = _follow(record, own, as_json=as_json)
        code = show.conclude(outcome, own, sweepview.done, as_json=as_json)
    except FtlError as error:
        show_error(error)
        return replace(_row(plan, record, state, None), state="interrupted", exit_code=error.exit_code)
    row = _row(plan, outcome.record, outcome.state, _trained(outcome.result))
    return replace(row, state="not delivered", exit_code=code) if code == ExitCode.UNDELIVERED else row


def _is_settled(record: RunRecord, state: JobState | None, result: RunResult | None) -> bool:
    """Whether this command has nothing to do for the run: its model is delivered, or it failed for good."""
    if result is not None:
        return Path(record.output_dir).exists()
    return state is not None and state.phase == "ended" and state.cause not in _GOES_ON


def _follow(record: RunRecord, backend: Backend, *, as_json: bool) -> Outcome:
    try:
        return show.follow(record, backend, as_json=as_json)[0]
    except KeyboardInterrupt:
        show.detached(record, as_json=as_json)
        raise


def _again(record: RunRecord) -> RunRecord:
    """The next attempt of a run that was interrupted."""
    backend = backend_of(record)
    problems = backend.preflight(record.spec)
    if problems:
        raise BackendError(*problems)
    if record.handle is not None:
        backend.remove(record.handle)
    return launch.submit(record, backend)


def _standing(run_id: str) -> tuple[RunRecord | None, JobState | None, RunResult | None]:
    """What is known of the run of that id; nothing when it was never launched."""
    if not jobs.is_known(run_id):
        return None, None, None
    record = jobs.load(run_id)
    backend = backend_of(record)
    return record, launch.status(record, backend), _trained(launch.result(record, backend))


def _trained(result: RunResult | TaskResult | None) -> RunResult | None:
    return result if isinstance(result, RunResult) else None


def _row(plan: Planned, record: RunRecord | None, state: JobState | None, result: RunResult | None) -> Row:
    told, code = "new", int(ExitCode.DONE)
    if result is not None and state is not None and state.exit_code == ExitCode.UNDELIVERED:
        told, code = "not delivered", ExitCode.UNDELIVERED
    elif result is not None:
        told = "done"
    elif record is not None and state is not None and state.phase != "ended":
        told = state.phase
    elif record is not None and state is not None:
        code = ExitCode.TRAINING if state.exit_code in (None, 0) else state.exit_code
        told = "stopped" if code == ExitCode.PREEMPTED else f"failed: {state.cause}"
    return Row(plan.combination, plan.spec.run_id, told, code, result)
