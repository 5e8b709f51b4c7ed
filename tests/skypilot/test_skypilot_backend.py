"""The backend over a stand-in for the worker, which answers as SkyPilot has been seen to."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftl.backends import skypilot, skypilot_watch
from ftl.backends.secret_files import delete_secrets, memory_folder, secrets_dir
from ftl.backends.sky_client import SkyError
from ftl.backends.skypilot import SkypilotBackend
from ftl.backends.skypilot_cloud import SkypilotCloud
from ftl.backends.skypilot_deadman import first_boot
from ftl.backends.skypilot_plan import job_name, mark_of
from ftl.contract import Bundle, JobHandle, JobSpec, Provenance, RunResult
from ftl.errors import BackendError, DeliveryError, UncertainError
from ftl.jobs import Attempt, RunRecord

OFFER = {"place": "aws", "machine": "g6.xlarge", "is_spot": False, "usd_per_hour": 2.0, "choice": 0}


class Worker:
    """Answers by operation; keeps what it was asked. An answer may be an exception."""

    def __init__(self, **answers: Any) -> None:
        check = {"problems": [], "offers": [OFFER], "unknown": None}
        self.answers: dict[str, Any] = {"check": check, "find": None, "launch": {"request": "r-1"}, "down": None}
        self.answers |= answers
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def ask(self, op: str, limit_s: float | None = None, **order: Any) -> Any:
        self.asked.append((op, order))
        answer = self.answers[op]
        if isinstance(answer, Exception):
            raise answer
        return answer(order) if callable(answer) else answer

    def count(self, op: str) -> int:
        return sum(name == op for name, _ in self.asked)

    def says(self, output: str) -> None:
        """The log holds this, and the job has ended."""
        self.answers["log"] = lambda order: {
            "pieces": [] if order["offset"] else [output],
            "offset": 1,
            "ended": "",
            "is_fresh": not order["offset"],
        }


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., tuple[SkypilotBackend, Worker, JobSpec]]:
    def build(worker: Worker | None = None, **keys: Any) -> tuple[SkypilotBackend, Worker, JobSpec]:
        cloud = SkypilotCloud.model_validate({"provider": "skypilot", "infra": "aws", "gpu": "L4", **keys})
        backend = SkypilotBackend(cloud)
        worker = worker or Worker()
        backend._sky = worker  # type: ignore[assignment]
        spec = {"run_id": "abc234-quick", "secrets": cloud.secrets, **backend.spec_fields(), "image": None}
        if cloud.checkpoints:
            spec["stores"] = [{"kind": "url", "url": cloud.checkpoints}]
        return backend, worker, JobSpec.model_validate(spec)

    return build


Make = Callable[..., tuple[SkypilotBackend, Worker, JobSpec]]


def submitted(backend: SkypilotBackend, spec: JobSpec, tmp_path: Path) -> JobHandle:
    run_dir, bundle = tmp_path / "run", Bundle(sha256="b" * 64, path=str(tmp_path), size_bytes=1)
    run_dir.mkdir(exist_ok=True)
    record = RunRecord(
        id=spec.run_id, name="quick", created_at=1.0, ftl_version="0", config_path="/home/me/cats/cfg.yml",
        output_dir="/home/me/cats/out", provider="skypilot", cloud=backend.cloud.model_dump(mode="json"), spec=spec,
        bundle=bundle, attempts=tuple(Attempt(number=n + 1, submitted_at=2.0) for n in range(spec.attempt)),
    )  # fmt: skip
    (run_dir / "record.json").write_text(record.model_dump_json())
    return backend.submit(spec, bundle, run_dir)


def start_of(spec: JobSpec) -> str:
    return f"{mark_of(spec)} {json.dumps({'start': 100.0})}\n"


def output_of(spec: JobSpec, *, cause: str = "done", exit_code: int = 0, start: float = 100.0) -> str:
    mark = mark_of(spec)
    record = {"attempt": spec.attempt, "exit_code": exit_code, "cause": cause, "message": None}
    told = [{"start": start}, {"file": "exit.json", "start": start, "text": json.dumps(record)}]
    return "".join(f"{mark} {json.dumps(one)}\n" for one in told)


def test_launch_is_asked_for_once_with_a_machine_that_ends_itself(make: Make, tmp_path: Path) -> None:
    backend, worker, spec = make(autostop=7)
    handle = submitted(backend, spec, tmp_path)
    (order,) = [order for op, order in worker.asked if op == "launch"]
    assert (order["name"], order["managed"], order["autostop"]) == ("ftl-abc234-quick-1", False, 7)
    assert order["first_boot"] == first_boot(7)
    assert handle.ref["request"] == "r-1"


@pytest.mark.parametrize("found", [{}, {"request": "r-9"}, {"job_id": 4}], ids=["cluster", "request", "managed job"])
def test_attempt_that_skypilot_knows_is_not_launched_again(found: dict[str, Any], make: Make, tmp_path: Path) -> None:
    backend, worker, spec = make(Worker(find=found))
    handle = submitted(backend, spec, tmp_path)
    assert worker.count("launch") == 0
    assert handle.ref["name"] == job_name(spec)


def test_refused_launch_is_a_sentence_and_leaves_no_secret(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    refusal = SkyError("ValueError", "quota exceeded in us-east-1")
    backend, _, spec = make(Worker(launch=refusal), secrets=["HF_TOKEN"])
    with pytest.raises(BackendError, match=r"^quota: quota exceeded"):
        submitted(backend, spec, tmp_path)
    folder = memory_folder()
    assert folder is not None
    assert not secrets_dir(folder, spec.run_id, spec.attempt).exists()


def test_secrets_wait_in_memory_for_the_machine_and_go_when_the_job_ends(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    backend, worker, spec = make(secrets=["HF_TOKEN"])
    handle = submitted(backend, spec, tmp_path)
    folder = memory_folder()
    assert folder is not None
    directory = secrets_dir(folder, spec.run_id, spec.attempt)
    assert (directory / "HF_TOKEN").read_text() == "hf_canary"
    assert "hf_canary" not in json.dumps(worker.asked)
    assert "hf_canary" not in handle.model_dump_json()
    worker.answers["state"] = {"status": "FAILED"}
    worker.says(output_of(spec, cause="crash", exit_code=70))
    assert backend.status(handle).exit_code == 70
    assert not directory.exists()


@pytest.mark.parametrize(
    ("status", "phase"),
    [
        *(("LAUNCHING", "queued"), ("PENDING", "queued"), ("SETTING_UP", "queued")),
        *(("RUNNING", "running"), ("RECOVERING", "running"), ("UNKNOWN", "running")),
    ],
)
def test_state_of_skypilot_is_a_phase(status: str, phase: str, make: Make, tmp_path: Path) -> None:
    backend, worker, spec = make()
    handle = submitted(backend, spec, tmp_path)
    worker.answers["state"] = {"status": status, "text": ""}
    assert backend.status(handle).phase == phase


def test_what_a_machine_waits_for_is_told(make: Make, tmp_path: Path) -> None:
    backend, worker, spec = make()
    handle = submitted(backend, spec, tmp_path)
    worker.answers["state"] = {"status": "LAUNCHING", "text": "Launching (pending: Resources; partition: main)"}
    assert backend.status(handle).message == "Launching (pending: Resources; partition: main)"


@pytest.mark.parametrize(
    ("asked", "key"),
    [("1x Slurm({'A100': 1}, region=lab)", "gpu"), ("1x Slurm(cpus=40+, region=lab, zone=main)", "cpus")],
)
def test_machine_that_the_cluster_has_not_is_told_by_its_key(asked: str, key: str, make: Make, tmp_path: Path) -> None:
    text = f"Catalog does not contain any instances satisfying the request: {asked}."
    backend, worker, spec = make(infra="slurm/lab")
    handle = submitted(backend, spec, tmp_path)
    advice = "; To fix: relax or change the resource requirements.; Hint: sky gpus list"
    worker.answers["state"] = {"status": "REFUSED", "text": text + advice}
    assert backend.status(handle).message == f"SkyPilot could not launch it: {key}: {text}"


@pytest.mark.parametrize(
    ("status", "text", "cause", "code"),
    [
        ("REFUSED", "quota: VcpuLimitExceeded", "environment", 3),
        ("FAILED_SETUP", "", "environment", 3),
        ("FAILED_NO_RESOURCE", "none left", "environment", 3),
        ("FAILED", "", "crash", 70),
        ("CANCELLED", "", "signal", 75),
        ("GONE", "", "lost", 75),
        ("ENDED", "", "signal", 75),
        ("SUCCEEDED", "", "lost", 75),
    ],
)
def test_job_without_verdict_ends_with_what_skypilot_says(
    status: str, text: str, cause: str, code: int, make: Make, tmp_path: Path
) -> None:
    backend, worker, spec = make()
    handle = submitted(backend, spec, tmp_path)
    worker.answers["state"] = {"status": status, "text": text}
    worker.says("Traceback: the last words\n")
    state = backend.status(handle)
    assert (state.phase, state.cause, state.exit_code) == ("ended", cause, code)
    assert text in str(state.message)


def test_verdict_of_the_runtime_stands_above_what_skypilot_says(make: Make, tmp_path: Path) -> None:
    backend, worker, spec = make()
    handle = submitted(backend, spec, tmp_path)
    worker.answers["state"] = {"status": "FAILED", "text": "exit code 1"}
    worker.says(output_of(spec, cause="signal", exit_code=75))
    state = backend.status(handle)
    assert (state.cause, state.exit_code) == ("signal", 75)


def test_log_that_had_ended_before_the_job_is_read_again(make: Make, tmp_path: Path) -> None:
    backend, worker, spec = make()
    handle = submitted(backend, spec, tmp_path)
    early = {"pieces": [], "offset": 0, "ended": "", "is_fresh": False}
    whole = {"pieces": [output_of(spec)], "offset": 1, "ended": "", "is_fresh": True}
    worker.answers |= {
        "state": {"status": "SUCCEEDED"},
        "log": lambda order: early if worker.count("log") < 3 else whole,
    }
    assert backend.status(handle).cause == "done"


def test_first_look_at_a_log_waits_past_what_skypilot_says_before_it(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way to the machine takes seconds, and `ftl ps` from another computer looks once."""
    clock = iter(range(0, 1000, 2))  # two seconds between any two looks
    ticking = SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda s: None, time=lambda: 1e12)
    monkeypatch.setattr(skypilot_watch, "time", ticking)
    backend, worker, spec = make()
    handle = submitted(backend, spec, tmp_path)
    lines = iter([["Streaming the logs of the latest job.\n"], [], [output_of(spec)]])
    worker.answers["state"] = {"status": "RUNNING"}
    worker.answers["log"] = lambda order: {
        "pieces": next(lines, []), "offset": 1, "ended": None, "is_fresh": False,
    }  # fmt: skip
    assert json.loads(backend.read(handle, "exit.json", 0))["cause"] == "done"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        pytest.param(
            {"spot": True, "checkpoints": "s3://lake/x", "controller": "local"},
            ("ordered", ["aws/us-west-2", "aws/eu-west-1", "aws/us-east-1", "aws/sa-east-1"]),
            id="managed",
        ),
        pytest.param(
            {}, ("any_of", ["aws/us-east-1", "aws/us-west-2", "aws/sa-east-1", "aws/eu-west-1"]), id="on demand"
        ),
    ],
)
def test_managed_job_tries_the_cheapest_of_its_places_first(
    keys: dict[str, Any], expected: tuple[str, list[str]], make: Make, tmp_path: Path
) -> None:
    """Its controller would take them in any order; one whose price nobody knows comes last."""
    prices = {0: [4.0, 3.0], 1: [1.0], 2: [None], 3: [2.0, 9.0]}
    offers = [dict(OFFER, choice=choice, usd_per_hour=usd) for choice, all_usd in prices.items() for usd in all_usd]
    worker = Worker(check={"problems": [], "offers": offers, "unknown": None})
    regions = ["us-east-1", "us-west-2", "sa-east-1", "eu-west-1"]
    backend, worker, spec = make(worker, regions=regions, **keys)
    submitted(backend, spec, tmp_path)
    (order,) = [order for op, order in worker.asked if op == "launch"]
    (check,) = [order for op, order in worker.asked if op == "check"]
    assert [one["infra"] for one in check["task"]["resources"]["ordered"]] == [f"aws/{region}" for region in regions]
    key, places = expected
    shown = backend.describe(spec, Bundle(sha256="b" * 64, path="/b", size_bytes=1), tmp_path)
    for task in (order["task"], shown):
        assert [one["infra"] for one in task["resources"][key]] == places
        assert {"any_of", "ordered"} & set(task["resources"]) == {key}


def test_what_had_come_of_the_log_of_a_machine_that_is_gone_has_the_verdict(make: Make, tmp_path: Path) -> None:
    """Another computer has stopped the run and ended its machine between two looks."""
    backend, worker, spec = make()
    handle = submitted(backend, spec, tmp_path)
    worker.answers["state"] = {"status": "RUNNING"}
    begin, end = output_of(spec, cause="signal", exit_code=75).splitlines(keepends=True)
    worker.answers["log"] = {"pieces": [begin], "offset": 1, "ended": "", "is_fresh": True}
    backend.read(handle, "events.jsonl", 0)
    worker.answers["state"] = {"status": "GONE"}
    worker.answers["log"] = {"pieces": [end], "offset": 2, "ended": "", "is_fresh": False}
    backend._watched(handle).asked_at = 0.0  # time passes
    assert backend.status(handle).cause == "signal"


class Clock:
    """Stands still, but for who sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    time = monotonic

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def told_at(spec: JobSpec, offset: int, t: float) -> tuple[str, int]:
    """A step in the output, and where the next one stands."""
    line = json.dumps({"t": t, "attempt": 1, "event": "step", "data": {"step": 1}})
    told = {"file": "events.jsonl", "id": "1000.000-ab", "offset": offset, "line": line}
    return f"{mark_of(spec)} {json.dumps(told)}\n", offset + len(line) + 1


def test_first_look_at_a_training_that_is_never_quiet_ends_once_it_has_caught_up(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(skypilot_watch, "time", clock)
    backend, worker, spec = make()
    handle = submitted(backend, spec, tmp_path)
    worker.answers["state"] = {"status": "RUNNING"}
    offset, told = 0, clock.now - 3

    def log(order: dict[str, Any]) -> dict[str, Any]:
        nonlocal offset, told
        piece, offset = told_at(spec, offset, told)
        told += 1  # it tells of a second in 0.2 s
        return {"pieces": [start_of(spec), piece], "offset": 1, "ended": None, "is_fresh": False}

    worker.answers["log"] = log
    assert len(backend.read(handle, "events.jsonl", 0).splitlines()) == 4
    assert clock.now == pytest.approx(1000.6)


def test_server_that_needs_long_is_asked_seldom_and_so_is_one_whose_log_comes_in(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(skypilot_watch, "time", clock)
    monkeypatch.setattr(skypilot, "time", clock)
    backend, worker, spec = make()
    handle = submitted(backend, spec, tmp_path)
    answer_s = 0.5

    def state(order: dict[str, Any]) -> dict[str, Any]:
        clock.now += answer_s
        return {"status": "RUNNING"}

    def num_asked(seconds: int) -> int:
        before = worker.count("state")
        for _ in range(seconds):
            clock.now += 1
            backend.status(handle)
        return worker.count("state") - before

    worker.answers["state"] = state
    backend.status(handle)
    assert num_asked(60) == 12
    answer_s = 8.0
    assert 2 <= num_asked(60) <= 3  # 24 s from one to the next
    answer_s = 0.5
    worker.says(start_of(spec))
    worker.answers["log"] = {"pieces": [start_of(spec)], "offset": 1, "ended": None, "is_fresh": False}
    backend.read(handle, "log.txt", 0)
    assert num_asked(60) == 2
    worker.answers["log"] = {"pieces": [output_of(spec)], "offset": 2, "ended": None, "is_fresh": False}
    backend.read(handle, "log.txt", 0)
    assert num_asked(60) == 12  # it has said how it ended; SkyPilot is about to


def test_end_is_remembered_and_not_asked_for_again(make: Make, tmp_path: Path) -> None:
    backend, worker, spec = make()
    handle = submitted(backend, spec, tmp_path)
    worker.answers["state"] = {"status": "SUCCEEDED", "usd_per_hour": 2.0, "seconds": 5400}
    worker.says(output_of(spec))
    first = backend.status(handle)
    other, nobody, _ = make(Worker(state=AssertionError("asked again")))
    assert other.status(handle) == first
    spent = other.spent(handle)
    assert spent is not None
    assert (spent.hours, spent.usd) == (1.5, 3.0)
    assert nobody.count("state") == 0


def test_machine_of_a_run_with_a_store_is_ended_with_the_job(make: Make, tmp_path: Path) -> None:
    backend, worker, spec = make(checkpoints="s3://bucket/place")
    handle = submitted(backend, spec, tmp_path)
    worker.answers["state"] = {"status": "SUCCEEDED"}
    worker.says(output_of(spec))
    backend.status(handle)
    assert worker.count("down") == 1


def test_machine_with_the_only_copy_is_ended_when_that_was_fetched(make: Make, tmp_path: Path) -> None:
    backend, worker, spec = make(Worker(fetch=None))
    handle = submitted(backend, spec, tmp_path)
    worker.answers["state"] = {"status": "SUCCEEDED"}
    worker.says(output_of(spec))
    backend.status(handle)
    assert worker.count("down") == 0
    backend.fetch(handle, "output", tmp_path / "copy")
    assert worker.count("down") == 1
    assert worker.asked[-2][1]["source"] == "~/.ftl/runs/abc234-quick/output/"


def test_output_that_is_nowhere_any_more_is_said(make: Make, tmp_path: Path) -> None:
    backend, _, spec = make(Worker(fetch=SkyError("LookupError", "there is no machine of the name ftl-x")))
    handle = submitted(backend, spec, tmp_path)
    with pytest.raises(DeliveryError, match=r"has no store.*no machine"):
        backend.fetch(handle, "output", tmp_path / "copy")


def test_run_that_nobody_saw_end_is_done_when_its_store_has_the_model(make: Make, tmp_path: Path) -> None:
    store = tmp_path / "store"
    backend, worker, spec = make(infra="slurm", checkpoints=f"file://{store}")
    handle = submitted(backend, spec, tmp_path)
    result = RunResult(
        run_id=spec.run_id, attempt=1, steps=7, epochs=1, tokens=70, train_loss_first=2.0, train_loss_last=1.0,
        seconds=1.0, num_parameters=10, num_trainable=10,
    )  # fmt: skip
    made = Provenance(run_id=spec.run_id, ftl="0", finished_at=1.0, config={}, hours=1.0, result=result)
    (store / spec.run_id / "output").mkdir(parents=True)
    (store / spec.run_id / "output/ftl-run.json").write_text(made.model_dump_json())
    worker.answers["state"] = {"status": "GONE", "text": ""}
    assert backend.status(handle).cause == "done"
    assert RunResult.read_json(backend.read(handle, "result.json", 0)) == result


def test_server_that_is_away_does_not_end_the_following(make: Make, tmp_path: Path) -> None:
    backend, worker, spec = make()
    handle = submitted(backend, spec, tmp_path)
    worker.answers["state"] = {"status": "RUNNING"}
    running = backend.status(handle)
    backend._watched(handle).asked_at -= 10
    worker.answers["state"] = SkyError("ConnectionError", "connection refused")
    assert backend.status(handle) == running
    backend._watched(handle).asked_at -= 10_000
    with pytest.raises(BackendError, match="sky api start"):
        backend.status(handle)


def test_stop_reaches_the_runtime_itself_and_else_asks_skypilot(make: Make, tmp_path: Path) -> None:
    backend, worker, spec = make(Worker(stop=None, cancel=None))
    handle = submitted(backend, spec, tmp_path)
    backend.cancel(handle)
    (order,) = [order for op, order in worker.asked if op == "stop"]
    assert (order["name"], order["file"]) == (job_name(spec), f"ftl-stop-{mark_of(spec)[5:]}")
    assert worker.count("cancel") == 0
    worker.answers["stop"] = SkyError("LookupError", "no way there")
    backend.cancel(handle)
    assert worker.count("cancel") == 1
    backend.cancel(handle, now=True)
    assert worker.count("down") == 1


def test_budget_that_no_price_can_keep_is_not_started(make: Make, tmp_path: Path) -> None:
    check = {"problems": [], "offers": [], "unknown": "no catalog"}
    backend, worker, spec = make(Worker(check=check), max_usd=5)
    with pytest.raises(BackendError, match="max_usd"):
        submitted(backend, spec, tmp_path)
    assert worker.count("launch") == 0


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("VcpuLimitExceeded: more vCPU capacity than your current vCPU limit of 0 allows", "quota"),
        ("InsufficientInstanceCapacity: no sufficient capacity in the zone you requested", "infra"),
        ("Failed to provision all possible launchable resources: 1x AWS(image_id={'us-east-1': 'docker:x'})", "infra"),
        ("image 'docker:x' was not found", "image"),
    ],
)
def test_refusal_of_a_cloud_is_told_by_its_key(text: str, key: str, make: Make, tmp_path: Path) -> None:
    backend, worker, spec = make()
    handle = submitted(backend, spec, tmp_path)
    worker.answers["state"] = {"status": "REFUSED", "text": text}
    assert backend.status(handle).message == f"SkyPilot could not launch it: {key}: {text}"


def ordered(worker: Worker) -> dict[str, Any]:
    """The job as it was launched."""
    (order,) = [order for op, order in worker.asked if op == "launch"]
    text = order["task"]["run"].partition("<<'FTL_ORDER'\n")[2].partition("\nFTL_ORDER")[0]
    job: dict[str, Any] = json.loads(text)["job"]
    return job


def test_budget_of_a_managed_job_counts_from_its_launch_over_all_machines(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftl.backends.skypilot_prices.time.time", lambda: 5000.0)
    keys = {"spot": True, "controller": "local", "checkpoints": "s3://bucket/p", "max_usd": 3}
    backend, worker, spec = make(**keys)
    submitted(backend, spec, tmp_path)
    job = ordered(worker)
    assert (job["timeout_s"], job["limit_from"]) == (5400, 5000.0)  # 3 USD at 2 USD an hour


def test_budget_of_a_machine_of_its_own_counts_from_its_start_until_one_is_lost(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftl.backends.skypilot_prices.time.time", lambda: 5000.0)
    backend, worker, spec = make(max_usd=3)
    submitted(backend, spec, tmp_path)
    assert ordered(worker)["limit_from"] is None
    backend, worker, spec = make(max_usd=3)
    submitted(backend, spec.model_copy(update={"limit_from": 4000.0, "attempt": 2}), tmp_path)
    assert ordered(worker)["limit_from"] == 4000.0


@pytest.mark.parametrize(
    ("keys", "timeout_s", "told"),
    [({"max_usd": 3}, None, "max_usd: 3: is used up"), ({}, 5400, "timeout: 5400 s: is used up")],
    ids=["max_usd", "timeout"],
)
def test_budget_that_lost_machines_have_used_up_rents_no_other(
    keys: dict[str, Any], timeout_s: int | None, told: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftl.backends.skypilot_prices.time.time", lambda: 5000.0 + 5400.0)
    backend, worker, spec = make(**keys)
    again = spec.model_copy(update={"limit_from": 5000.0, "attempt": 2, "timeout_s": timeout_s})
    with pytest.raises(BackendError, match=f"^{told}.*ftl resume abc234-quick"):
        submitted(backend, again, tmp_path)
    assert worker.count("launch") == 0


@pytest.mark.parametrize(
    "failure",
    [SkyError("ConnectionError", "reset by peer"), BackendError("SkyPilot: `launch`: no answer in 300 s")],
    ids=["connection", "no answer"],
)
def test_launch_that_may_have_been_taken_keeps_its_secrets_and_is_asked_again(
    failure: BackendError, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    backend, worker, spec = make(Worker(launch=failure), secrets=["HF_TOKEN"])
    with pytest.raises(UncertainError, match=r"may have taken it.*ftl resume abc234-quick"):
        submitted(backend, spec, tmp_path)
    folder = memory_folder()
    assert folder is not None
    secrets = secrets_dir(folder, spec.run_id, spec.attempt)
    assert secrets.exists()
    worker.answers |= {"find": {"request": "r-1"}}
    submitted(backend, spec, tmp_path)
    assert worker.count("launch") == 1
    delete_secrets(spec.run_id, spec.attempt)


@pytest.mark.parametrize(
    ("controller", "consolidated", "named"),
    [("local", True, []), ("local", False, ["controller"]), ("cloud", True, ["controller"]), ("local", None, [])],
)
def test_controller_that_the_server_would_not_use_is_refused(
    controller: str, consolidated: bool | None, named: list[str], make: Make
) -> None:
    ready = {"problems": [], "enabled": ["aws"], "consolidated": consolidated}
    keys = {"spot": True, "controller": controller, "checkpoints": "s3://bucket/p", "image": "none"}
    backend, _, spec = make(Worker(ready=ready), **keys)
    assert [problem.where for problem in backend._machine_problems(spec)] == named


def test_value_of_a_secret_is_not_in_the_worker_s_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    from ftl.backends.sky_client import _environment

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary")
    monkeypatch.setenv("PYTHONPATH", "/ours")
    seen = _environment(frozenset({"AWS_SECRET_ACCESS_KEY"}))
    assert "canary" not in seen.values()
    assert "PYTHONPATH" not in seen
    assert seen["HOME"] == os.environ["HOME"]


# --- what another machine finds of it ---


def told(worker: Worker, *, is_over: bool = False) -> list[dict[str, Any]]:
    """What the API server has of every launch, as the worker tells it."""
    orders = [order for op, order in worker.asked if op == "launch"]
    return [{"name": order["name"], "script": order["task"]["run"], "is_over": is_over} for order in orders]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to another machine, which has none of this one's files."""
    monkeypatch.setenv("FTL_STATE_DIR", str(tmp_path / "elsewhere"))
    return tmp_path / "elsewhere"


def test_run_is_found_from_another_machine_by_what_skypilot_has_of_it(
    make: Make, tmp_path: Path, elsewhere: Path
) -> None:
    backend, worker, spec = make()
    handle = submitted(backend, spec, tmp_path)
    other, asked, _ = make(Worker(tasks=told(worker), state={"status": "RUNNING"}, log={}))
    (found,) = [RunRecord.model_validate(record) for record in other.records()]
    assert str(tmp_path / "run") not in found.model_dump_json()
    assert "/home/me" not in found.model_dump_json()
    assert found.handle is not None
    assert found.handle.ref["run_dir"] == str(elsewhere / "runs/abc234-quick")
    assert found.handle.ref["mark"] == handle.ref["mark"]
    assert other.status(found.handle).phase == "running"
    assert asked.asked[-1][1]["name"] == handle.ref["name"]
    assert not elsewhere.exists(), "looking at a run keeps nothing of it"


def test_record_of_the_newest_attempt_is_the_one_that_counts(make: Make, tmp_path: Path, elsewhere: Path) -> None:
    backend, worker, spec = make()
    for number in (2, 1):
        submitted(backend, spec.model_copy(update={"attempt": number}), tmp_path)
    stranger = {"name": "ftl-cats", "script": "python train.py", "is_over": False}
    other, _, _ = make(Worker(tasks=[stranger, *told(worker)]))
    (found,) = [RunRecord.model_validate(record) for record in other.records()]
    assert [attempt.number for attempt in found.attempts] == [1, 2]
    assert found.handle is not None
    assert found.handle.ref["name"] == "ftl-abc234-quick-2"


def test_run_whose_machine_had_gone_before_is_not_taken_for_a_lost_one(
    make: Make, tmp_path: Path, elsewhere: Path
) -> None:
    """A lost one would be started again by `ftl attach`; this one may have been stopped."""
    backend, worker, spec = make()
    submitted(backend, spec, tmp_path)
    other, asked, _ = make(Worker(tasks=told(worker, is_over=True)))
    (found,) = [RunRecord.model_validate(record) for record in other.records()]
    assert found.handle is not None
    state = other.status(found.handle)
    assert (state.phase, state.cause, state.exit_code) == ("ended", None, 75)
    assert asked.count("state") == 0
