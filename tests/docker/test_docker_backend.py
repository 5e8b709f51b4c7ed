"""The Docker backend against a real engine, with a stand-in for the runtime."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from docker_places import Make, Workplace, ended, facts, secret_folders, started

from ftl.contract import JobState
from ftl.errors import BackendError, ConfigError
from ftl.image import BuiltImage

if TYPE_CHECKING:
    from docker import DockerClient

CANARY = "canary-6fe1d2c0-do-not-leak"


def test_finished_job_reports_its_verdict_and_leaves_files_of_the_caller(place: Workplace, make_backend: Make) -> None:
    backend = make_backend()
    handle = backend.submit(place.spec(backend), place.bundle, place.run_dir)
    assert ended(backend, handle) == JobState(phase="ended", exit_code=0, cause="done", message="stub: done")
    assert {file.stat().st_uid for file in place.run_dir.iterdir()} == {os.getuid()}


def test_job_file_names_the_paths_inside(place: Workplace, make_backend: Make) -> None:
    backend = make_backend()
    ended(backend, backend.submit(place.spec(backend), place.bundle, place.run_dir))
    assert facts(place)["paths"] == {
        "bundle": "/ftl/bundle",
        "run": "/ftl/run",
        "cache": "/ftl/cache",
        "mounts": {},
        "secrets": None,
    }


def test_container_is_locked_down(place: Workplace, make_backend: Make, engine: "DockerClient") -> None:
    backend = make_backend(shm=1, cpus=1, memory=1)
    handle = backend.submit(place.spec(backend, mode="wait"), place.bundle, place.run_dir)
    inspected = engine.api.inspect_container(str(handle.ref["container"]))
    host = inspected["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Init"] is True
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (2**30, 2**30, 10**9)
    started(backend, handle)
    assert facts(place)["shm_bytes"] == 2**30
    assert inspected["Config"]["User"] == f"{os.getuid()}:{os.getgid()}"


def test_any_uid_trains_with_a_read_only_root(
    place: Workplace, make_backend: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can hand the run directory to another user")
    monkeypatch.setattr(os, "getuid", lambda: 4321)
    monkeypatch.setattr(os, "getgid", lambda: 4321)
    for folder in (place.run_dir, Path(place.bundle.path)):
        os.chown(folder, 4321, 4321)
    for parent in place.run_dir.parents:
        if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
            parent.chmod(0o755)
    backend = make_backend()
    handle = backend.submit(place.spec(backend), place.bundle, place.run_dir)
    assert ended(backend, handle).cause == "done"
    assert (facts(place)["uid"], (place.run_dir / "facts.json").stat().st_uid) == (4321, 4321)


def test_submit_twice_gives_one_container(place: Workplace, make_backend: Make, engine: "DockerClient") -> None:
    backend = make_backend()
    spec = place.spec(backend, mode="wait")
    first = backend.submit(spec, place.bundle, place.run_dir)
    assert make_backend().submit(spec, place.bundle, place.run_dir) == first
    assert len(engine.containers.list(all=True, filters={"label": f"io.ftl.run={place.run_id}"})) == 1


def test_attempt_created_by_a_killed_launcher_is_started(
    place: Workplace, make_backend: Make, monkeypatch: pytest.MonkeyPatch, engine: "DockerClient"
) -> None:
    from docker.api import APIClient

    backend = make_backend()
    spec = place.spec(backend)
    with monkeypatch.context() as patch:
        patch.setattr(APIClient, "start", lambda *_: os._exit(9))
        child = os.fork()
        if child == 0:
            backend.submit(spec, place.bundle, place.run_dir)
        os.waitpid(child, 0)
    [container] = engine.containers.list(all=True, filters={"label": f"io.ftl.run={place.run_id}"})
    assert container.status == "created"
    handle = backend.submit(spec, place.bundle, place.run_dir)
    assert ended(backend, handle).cause == "done"
    assert len(engine.containers.list(all=True, filters={"label": f"io.ftl.run={place.run_id}"})) == 1


def test_cancel_lets_the_runtime_save(place: Workplace, make_backend: Make) -> None:
    backend = make_backend()
    handle = backend.submit(place.spec(backend, mode="wait"), place.bundle, place.run_dir)
    started(backend, handle)
    before = time.monotonic()
    backend.cancel(handle)
    assert time.monotonic() - before < 2
    assert ended(backend, handle).cause == "signal"
    assert b'"stopped"' in backend.read(handle, "events.jsonl", 0)
    backend.cancel(handle)
    backend.cancel(handle, now=True)


def test_cancel_now_is_a_kill_without_verdict(place: Workplace, make_backend: Make) -> None:
    backend = make_backend()
    handle = backend.submit(place.spec(backend, mode="wait"), place.bundle, place.run_dir)
    started(backend, handle)
    backend.cancel(handle, now=True)
    assert ended(backend, handle) == JobState(
        phase="ended", exit_code=75, cause="killed", message="the container was killed from outside"
    )


def test_memory_limit_is_reported_as_out_of_memory(place: Workplace, make_backend: Make) -> None:
    backend = make_backend(memory=0.1)
    handle = backend.submit(place.spec(backend, mode="eat"), place.bundle, place.run_dir)
    state = ended(backend, handle)
    assert (state.cause, state.exit_code) == ("out-of-memory", 70)
    assert "raise `memory`" in str(state.message)


def test_exit_without_verdict_is_a_crash(place: Workplace, make_backend: Make) -> None:
    backend = make_backend()
    handle = backend.submit(place.spec(backend, mode="exit"), place.bundle, place.run_dir)
    state = ended(backend, handle)
    assert (state.cause, state.exit_code) == ("crash", 7)
    assert state.message == "the container ended with 7: stub: leaving"


def test_verdict_of_an_older_attempt_is_not_taken(place: Workplace, make_backend: Make) -> None:
    backend = make_backend()
    (place.run_dir / "exit.json").write_text('{"attempt": 1, "exit_code": 0, "cause": "done"}')
    handle = backend.submit(place.spec(backend, mode="exit", attempt=2), place.bundle, place.run_dir)
    assert ended(backend, handle).cause == "crash"


def test_removed_container_is_lost_but_its_verdict_stands(place: Workplace, make_backend: Make) -> None:
    backend = make_backend()
    handle = backend.submit(place.spec(backend), place.bundle, place.run_dir)
    ended(backend, handle)
    backend.remove(handle)
    backend.remove(handle)
    assert backend.status(handle).cause == "done"
    (place.run_dir / "exit.json").unlink()
    assert backend.status(handle).cause == "lost"


def test_fetch_and_read_work_from_the_run_directory(place: Workplace, make_backend: Make, tmp_path: Path) -> None:
    backend = make_backend()
    handle = backend.submit(place.spec(backend), place.bundle, place.run_dir)
    ended(backend, handle)
    backend.fetch(handle, "facts.json", tmp_path / "copy.json")
    assert (tmp_path / "copy.json").read_bytes() == backend.read(handle, "facts.json", 0)
    assert backend.read(handle, "nothing", 0) == b""
    assert backend.read(handle, "facts.json", 10**6) == b""


def test_secret_reaches_the_job_and_nothing_else(
    place: Workplace,
    make_backend: Make,
    engine: "DockerClient",
    built: BuiltImage,
    docker_cli: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FTL_TEST_TOKEN", CANARY)
    backend = make_backend()
    spec = place.spec(backend, mode="wait", secrets=("FTL_TEST_TOKEN",))
    handle = backend.submit(spec, place.bundle, place.run_dir)
    started(backend, handle)
    assert facts(place)["secret_lengths"] == {"FTL_TEST_TOKEN": len(CANARY)}
    [folder] = secret_folders(place)
    assert oct(folder.stat().st_mode & 0o777) == "0o700"
    assert oct((folder / "FTL_TEST_TOKEN").stat().st_mode & 0o777) == "0o400"
    assert CANARY not in docker_cli("inspect", str(handle.ref["container"]))
    assert CANARY not in docker_cli("history", "--no-trunc", built.id)
    assert CANARY not in docker_cli("inspect", built.id)
    assert CANARY not in docker_cli("logs", str(handle.ref["container"]))
    assert CANARY not in json.dumps(backend.describe(spec, place.bundle, place.run_dir))
    for file in place.run_dir.iterdir():
        assert CANARY not in file.read_text(), file
    backend.cancel(handle)
    ended(backend, handle)
    assert secret_folders(place) == []


def test_remove_deletes_the_secrets(place: Workplace, make_backend: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FTL_TEST_TOKEN", CANARY)
    backend = make_backend()
    spec = place.spec(backend, mode="wait", secrets=("FTL_TEST_TOKEN",))
    handle = backend.submit(spec, place.bundle, place.run_dir)
    assert secret_folders(place)
    backend.remove(handle)
    assert secret_folders(place) == []


def test_failed_start_leaves_neither_container_nor_secrets(
    place: Workplace, make_backend: Make, engine: "DockerClient", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTL_TEST_TOKEN", CANARY)
    backend = make_backend(gpu="all")
    with pytest.raises(BackendError, match="the engine has no NVIDIA support"):
        backend.submit(place.spec(backend, secrets=("FTL_TEST_TOKEN",)), place.bundle, place.run_dir)
    assert engine.containers.list(all=True, filters={"label": f"io.ftl.run={place.run_id}"}) == []
    assert secret_folders(place) == []


def test_secret_missing_in_the_shell_is_a_problem(place: Workplace, make_backend: Make) -> None:
    backend = make_backend()
    [problem] = backend.preflight(place.spec(backend, secrets=("FTL_TEST_ABSENT",)))
    assert str(problem) == "secret FTL_TEST_ABSENT: not set in this shell; `export FTL_TEST_ABSENT=...`"


def test_preflight_of_a_job_that_fits_finds_nothing(place: Workplace, make_backend: Make) -> None:
    backend = make_backend()
    assert backend.preflight(place.spec(backend)) == []


def test_preflight_lists_all_problems(place: Workplace, make_backend: Make) -> None:
    backend = make_backend(gpu=1, cpus=4096, memory=10**6)
    found = [str(problem) for problem in backend.preflight(place.spec(backend))]
    assert [text.split(":")[0] for text in found] == ["cpus", "memory", "image"]
    assert "has no CUDA" in found[2]


def test_unbuilt_image_is_a_problem_that_says_what_to_do(place: Workplace, make_backend: Make) -> None:
    backend = make_backend(image="cuda-flash")
    [problem] = backend.preflight(place.spec(backend))
    assert "build it with: ftl images build cuda-flash" in str(problem)
    with pytest.raises(BackendError, match="is not built on this engine yet"):
        backend.submit(place.spec(backend), place.bundle, place.run_dir)


def test_tag_is_refused_unless_allowed(place: Workplace, make_backend: Make, built: BuiltImage) -> None:
    backend = make_backend(image=built.tag)
    with pytest.raises(ConfigError, match="allow_unpinned: true"):
        backend.submit(place.spec(backend), place.bundle, place.run_dir)
    backend = make_backend(image=built.tag, allow_unpinned=True)
    handle = backend.submit(place.spec(backend), place.bundle, place.run_dir)
    assert ended(backend, handle).cause == "done"
