"""Submitting to the emulated Modal: once and only once, and mistakes are told before anything is made."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from modal_emulator import ModalEmulator

from ftl import jobs, launch
from ftl.backends import modal_state
from ftl.backends.modal import ModalBackend
from ftl.backends.modal_cloud import ModalCloud
from ftl.cloudfile import load_cloud
from ftl.contract import Bundle
from ftl.errors import BackendError, ConfigError
from ftl.jobs import RunRecord
from ftl.redact import hide

sys.path.insert(0, str(Path(__file__).parents[1] / "backends"))
from test_conformance import bundle, ended, run, submitted, wait  # noqa: F401

LIMIT_S = 6.0


@pytest.fixture
def backend(modal_server: ModalEmulator, monkeypatch: pytest.MonkeyPatch) -> ModalBackend:
    monkeypatch.setattr(ModalBackend, "poll_s", 0.1)
    return ModalBackend(ModalCloud())


@pytest.fixture
def submitter(own_state: Path, modal_server: ModalEmulator) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, str(Path(__file__).with_name("submitter.py"))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    yield process
    assert process.stdin is not None
    process.stdin.close()
    process.wait(20)


STAGES = [
    ("VolumeGetOrCreate", 1, "hold_before"),
    ("VolumePutFiles2", 1, "hold_before"),
    ("VolumePutFiles2", 2, "hold_after"),
    ("AppCreate", 1, "hold_after"),
    ("FunctionCreate", 1, "hold_after"),
    ("AppPublish", 1, "hold_after"),
    ("FunctionMap", 1, "hold_before"),
    ("FunctionMap", 1, "hold_after"),
    ("AppPublish", 1, "put_after"),
]
"""Where the launcher is killed; put_after: while it writes down which call it made."""


def test_launcher_killed_at_any_stage_of_submit_starts_nothing_twice(
    submitter: "subprocess.Popen[str]",
    backend: ModalBackend,
    run: Callable[..., RunRecord],  # noqa: F811
    modal_server: ModalEmulator,
) -> None:
    records = []
    for rpc, nth, kind in STAGES:
        record = run("done")
        fault = modal_server.fault(rpc, "hold_after" if kind == "put_after" else kind, nth=nth)
        assert submitter.stdin is not None and submitter.stdout is not None
        submitter.stdin.write(f"{record.id}\n")
        submitter.stdin.flush()
        child = int(submitter.stdout.readline())
        assert modal_server.wait_for_fault(fault), f"{rpc} was not called"
        if kind == "put_after":
            second = modal_server.fault("VolumePutFiles2", "hold_before")
            modal_server.release(fault)
            assert modal_server.wait_for_fault(second)
        os.kill(child, signal.SIGKILL)
        modal_server.heal()
        records.append(record)
    for record, stage in zip(records, STAGES, strict=True):
        handle = submitted(jobs.load(record.id), backend)
        state = wait(backend, handle, ended, 120)
        assert (state.cause, handle.attempt) == ("done", 1), stage
        assert backend.read(handle, "log.txt", 0).count(b"attempt 1 of") == 1, f"{stage}: it was started twice"
    again = jobs.load(records[0].id)
    assert backend.submit(again.spec, again.bundle, again.dir) == again.handle


def test_image_that_cannot_be_built_is_one_sentence_and_nothing_runs(
    backend: ModalBackend,
    run: Callable[..., RunRecord],  # noqa: F811
    modal_server: ModalEmulator,
    caplog: pytest.LogCaptureFixture,
) -> None:
    modal_server.fail_builds(("never-there", "E: Unable to locate package never-there"))
    backend = ModalBackend(ModalCloud(dockerfile_commands=("RUN apt-get install never-there",)))
    record = run("done")
    calls = len(modal_server.state["calls"])
    with pytest.raises(BackendError) as refused:
        launch.submit(record, backend)
    assert str(refused.value).startswith("image: cpu: E: Unable to locate package never-there; the log of its build is")
    assert "image: E: Unable to locate package never-there" in caplog.messages
    assert len(modal_server.state["calls"]) == calls
    assert record.id not in [kept["id"] for kept in backend.records()]


def test_log_of_a_build_is_told_as_it_comes_and_kept_with_the_run(
    run: Callable[..., RunRecord],  # noqa: F811
    modal_server: ModalEmulator,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("A_PASSWORD", "hunter2-and-more")
    hide(("A_PASSWORD",))
    lines = ("RUN echo hunter2-and-more", "RUN echo \x1b[31mred\x1b[0m")
    record = run("done")
    submitted(record, ModalBackend(ModalCloud(dockerfile_commands=lines)))
    steps = [message for message in caplog.messages if message.startswith("image: => Step")]
    assert any(step.endswith("RUN echo ***") for step in steps)
    assert any(step.endswith("RUN echo red") for step in steps)
    assert [f"image: {line}" for line in (record.dir / "image.log").read_text().splitlines()] == steps
    assert capsys.readouterr().out == ""
    again = run("done")
    submitted(again, ModalBackend(ModalCloud(dockerfile_commands=lines)))
    assert not (again.dir / "image.log").exists(), "it is built already"


def test_bundle_that_is_there_is_not_uploaded_again(
    backend: ModalBackend,
    run: Callable[..., RunRecord],  # noqa: F811
    modal_server: ModalEmulator,
) -> None:
    """What a second run of it sends is its job, and its record without and then with the call."""
    submitted(run("done"), backend)
    puts, before = len(modal_server.requests("VolumePutFiles2")), modal_server.state["uploaded_bytes"]
    second = run("done")
    submitted(second, backend)
    files = [file for put in modal_server.requests("VolumePutFiles2")[puts:] for file in put["files"]]
    own = f"runs/{second.id}"
    job, record = f"{own}/job-1.json", f"{own}/record.json"
    assert {file["path"].lstrip("/") for file in files} == {job, record}
    kept = modal_server.committed("ftl")
    assert modal_server.state["uploaded_bytes"] - before <= len(kept[job]) + 2 * len(kept[record])


def test_run_that_modal_has_started_no_container_for_is_queued_and_says_so(
    backend: ModalBackend,
    run: Callable[..., RunRecord],  # noqa: F811
    modal_server: ModalEmulator,
) -> None:
    modal_server.behave(capacity=0)
    backend = ModalBackend(ModalCloud(gpu="H100", prepare=False))
    handle = submitted(run("done"), backend)
    told = backend.status(handle)
    assert (told.phase, told.message) == ("queued", "Modal has not started a machine with H100 yet")
    now = time.time()
    for hours, told_as in ((700 / 3600, "10 min"), (3.5, "3 h")):
        with pytest.MonkeyPatch.context() as clock:
            clock.setattr(modal_state, "time", SimpleNamespace(time=lambda: now + hours * 3600))  # noqa: B023
            assert backend.status(handle).message == f"Modal has not started a machine with H100 yet, after {told_as}"
    modal_server.behave(capacity=8)
    assert wait(backend, handle, lambda state: state.phase != "queued").phase in ("running", "ended")
    assert wait(backend, handle, ended).cause == "done"


def test_large_directory_is_sent_once_and_secret_files_stay_here(
    backend: ModalBackend,
    run: Callable[..., RunRecord],  # noqa: F811
    modal_server: ModalEmulator,
    tmp_path: Path,
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights.bin").write_bytes(os.urandom(100_000))
    (model / ".env").write_text("X=never")
    mount = {"name": "model-1234", "source": str(model), "fingerprint": "f" * 64}
    handles = [submitted(run("done", mounts=[mount]), backend) for _ in range(2)]
    kept = modal_server.committed("ftl-cache")
    assert kept["mounts/model-1234/weights.bin"] == (model / "weights.bin").read_bytes()
    assert not [path for path in kept if path.endswith(".env")]
    assert all(wait(backend, handle, ended).cause == "done" for handle in handles)


def test_ended_runs_leave_no_app_and_no_bundle_behind(
    backend: ModalBackend,
    run: Callable[..., RunRecord],  # noqa: F811
    modal_server: ModalEmulator,
) -> None:
    handle = submitted(run("done"), backend)
    wait(backend, handle, ended)
    told = backend.collect()
    assert f"app ftl-{handle.run_id} stopped: the run has ended" in told
    assert backend.status(handle).cause == "done"
    for record in backend.records():
        backend.erase(handle.model_copy(update={"run_id": record["id"]}))
    assert backend.records() == []
    assert [line for line in backend.collect() if line.startswith("bundle bbbbbbbbbbbb removed")]


# --- what cannot work is told within seconds, before anything is made ---------------------------------------------


def refusals(backend: ModalBackend, record: RunRecord) -> list[str]:
    started = time.monotonic()
    told = [str(problem) for problem in backend.preflight(record.spec)]
    assert time.monotonic() - started < LIMIT_S
    return told


@pytest.fixture
def plain(run: Callable[..., RunRecord]) -> RunRecord:  # noqa: F811
    return run("done")


@pytest.fixture(autouse=True)
def nothing_is_made(request: pytest.FixtureRequest, modal_server: ModalEmulator) -> Iterator[None]:
    before = set(modal_server.state["apps"])
    yield
    if "plain" in request.fixturenames:
        assert set(modal_server.state["apps"]) == before


def test_secret_that_is_not_on_modal(plain: RunRecord) -> None:
    (told,) = refusals(ModalBackend(ModalCloud(modal_secrets=({"name": "absent", "keys": ["K"]},))), plain)
    assert told == "modal_secrets: absent: is not there on Modal; `modal secret create absent K=...`"


def test_secret_that_lacks_a_key(plain: RunRecord, modal_server: ModalEmulator) -> None:
    modal_server.add_secret("partly", {"A": "1"})
    (told,) = refusals(ModalBackend(ModalCloud(modal_secrets=({"name": "partly", "keys": ["B"]},))), plain)
    assert told.startswith("modal_secrets: partly: has not all of B")


def test_volume_of_the_wrong_version(plain: RunRecord) -> None:
    import modal

    modal.Volume.from_name("old", create_if_missing=True, version=1).hydrate()
    (told,) = refusals(ModalBackend(ModalCloud(volume="old")), plain)
    assert told.startswith("volume: old: is a volume of version 1 on Modal, and ftl needs version 2; give `volume`")


def test_environment_that_is_not_there(plain: RunRecord) -> None:
    (told,) = refusals(ModalBackend(ModalCloud(environment="absent")), plain)
    assert told.startswith("environment: absent: is not there on Modal; `modal environment create absent`")


def test_no_token(plain: RunRecord, backend: ModalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MODAL_TOKEN_ID")
    monkeypatch.delenv("MODAL_TOKEN_SECRET")
    (told,) = refusals(backend, plain)
    assert told.startswith("Modal: there is no token; `modal token new`")


def test_token_that_is_not_valid(plain: RunRecord, backend: ModalBackend, modal_server: ModalEmulator) -> None:
    modal_server.set_tokens({"ak-other": "as-other"})
    try:
        (told,) = refusals(backend, plain)
    finally:
        modal_server.set_tokens({"ak-emulated": "as-emulated"})
    assert "`modal token new`" in told


@pytest.mark.parametrize("how", ["closed", "silent"])
def test_server_that_does_not_answer(
    how: str, plain: RunRecord, backend: ModalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if how == "silent":
            listener.listen()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        program = (
            "import modal, sys, time; from ftl import jobs; from ftl.backends.modal import *\n"
            "from ftl.launch import backend_of\n"
            "record = jobs.load(sys.argv[1]); started = time.monotonic()\n"
            "problems = backend_of(record).preflight(record.spec)\n"
            "print(*problems); print(time.monotonic() - started)"
        )
        env = {**os.environ, "MODAL_SERVER_URL": address}
        done = subprocess.run(
            [sys.executable, "-c", program, plain.id], capture_output=True, text=True, env=env, check=False, timeout=60
        )
    told, seconds = done.stdout.splitlines()
    assert told == f"Modal: {address}: does not answer; look at status.modal.com, your network and MODAL_SERVER_URL"
    assert float(seconds) < LIMIT_S


@pytest.mark.parametrize("text", ["gpu: h1000", "attempt_timeout: 30h"])
def test_bad_cloud_file_is_refused_without_asking_modal(text: str, plain: RunRecord, tmp_path: Path) -> None:
    path = tmp_path / "modal.yml"
    path.write_text(f"provider: modal\n{text}\n")
    with pytest.raises(ConfigError):
        load_cloud(path)


def test_image_that_its_registry_does_not_have(plain: RunRecord, backend: ModalBackend) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Registry(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Registry) as registry:
        Thread(target=registry.serve_forever, daemon=True).start()
        image = f"127.0.0.1:{registry.server_port}/me/mine:1@sha256:{'d' * 64}"
        fields = ModalBackend(ModalCloud(image=image)).spec_fields()
        record = plain.model_copy(update={"spec": plain.spec.model_copy(update=fields)})
        (told,) = refusals(ModalBackend(ModalCloud(image=image)), record)
        registry.shutdown()
    assert told.endswith("has no such image; mend the digest")


def test_record_on_the_volume_names_no_path_of_the_machine_that_launched_it(
    backend: ModalBackend,
    run: Callable[..., RunRecord],  # noqa: F811
    bundle: Bundle,  # noqa: F811
) -> None:
    record = run("done")
    record = record.model_copy(update={"config_path": "/home/me/cats/cfg.yml", "output_dir": "/home/me/cats/out"})
    jobs.save(record)
    handle = launch.submit(record, backend).handle
    (kept,) = [found for found in backend.records() if found["id"] == record.id]
    assert (kept["config_path"], kept["output_dir"], kept["bundle"]["path"]) == ("cfg.yml", "out", "")
    assert bundle.path not in str(kept)
    assert handle is not None
    backend.remove(handle)
