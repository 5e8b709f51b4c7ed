"""What goes wrong between a run and the Hub: on every page that a push or a restore asks for, once and twice."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hub_faults import flipped
from hub_objects import Objects
from hub_repository import Repository
from hub_server import HubServer
from store_place import Place
from store_worker import StoreRaisedError, StoreWorker

from ftl_runtime.checkpoint import manifest

REFUSALS: dict[str, dict[str, Any]] = {str(status): {"status": status} for status in (401, 403, 404, 412, 413, 507)}
"""Nobody asks again for what is refused, nor by itself a server that is silent."""
FAULTS: dict[str, dict[str, Any]] = {
    **REFUSALS,
    "429": {"status": 429, "headers": {"Retry-After": "7"}},
    "500": {"status": 500},
    "503": {"status": 503},
    "lost answer": {"status": 504, "is_answer_lost": True},
    "away": {"kind": "away"},
    "reset": {"kind": "reset"},
    "slow": {"kind": "slow", "seconds": 0.05},
    "hanging": {"kind": "hang"},
    "truncated": {"kind": "truncate"},
    "flipped": {"kind": "flip"},
    "page": {"kind": "page"},
}
ONCE_TOO = ("503", "lost answer", "away", "reset")
"""Of what is asked again these happen also once alone, so that the second try gets through."""
ONCE = (*REFUSALS, "hanging")
CASES = [*((fault, 1) for fault in (*ONCE, *ONCE_TOO)), *((fault, 2) for fault in FAULTS if fault not in ONCE)]
OPEN = (("POST", "/repos/create"), ("GET", "/auth-check/write"))
"""Pages that a process asks for once."""
PUSH = (
    *OPEN,
    ("GET", "/revision/"),
    ("HEAD", "/owner.json"),
    ("GET", "/owner.json"),
    ("POST", "/paths-info/"),
    ("POST", "/preupload/"),
    ("POST", "/objects/batch"),
    ("PUT", "/_objects/"),
    ("PUT", "/_parts/"),
    ("POST", "/_complete/"),
    ("POST", "/_verify"),
    ("POST", "/commit/"),
)
RESTORE = (
    *OPEN,
    ("GET", "/tree/"),
    ("GET", "/revision/"),
    ("POST", "/paths-info/"),
    ("HEAD", "/checkpoint-1/manifest.json"),
    ("GET", "/checkpoint-1/manifest.json"),
    ("HEAD", "/checkpoint-1/model.safetensors"),
    ("GET", "/checkpoint-1/model.safetensors"),
    ("GET", "/_content/"),
)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture
def place(worker: StoreWorker, hub: HubServer, tmp_path: Path, checkpoints: Path) -> Place:
    ref = {"kind": "hub", "repo": f"ann/{tmp_path.name.replace('_', '-')}"}
    place = Place(worker, ref, tmp_path, checkpoints=checkpoints)
    place.ask("claim", owner="1-a")
    return place


def repository_of(place: Place, hub: HubServer) -> Repository:
    return hub.repositories["model", place.ref["repo"]]


@contextmanager
def struck(place: Place, hub: HubServer, fault: str, times: int, method: str, path: str) -> Iterator[None]:
    """The page goes wrong so often. Where it is silent, the client is content with little patience."""
    wanted = FAULTS[fault]
    act = hub.fail if "status" in wanted else hub.disturb
    act(**wanted, times=times, method=method, path=path)
    place.env.update({"FTL_STORE_SILENCE_S": "0.3"} if fault == "hanging" else {})
    yield
    assert hub.num_outwaited == 0, f"{method} {path}"
    place.env.clear()
    hub.heal()


@pytest.mark.parametrize(("fault", "times"), CASES)
def test_fault_in_a_push_leaves_nothing_half_and_passes(place: Place, hub: HubServer, fault: str, times: int) -> None:
    """Success, or a sentence that names the repository; nothing half there; the same again ends with one commit."""
    hub.part_bytes = 2500  # model.safetensors goes in parts, optimizer.pt at once
    repository = repository_of(place, hub)
    for step, (method, path) in enumerate(PUSH, start=1):
        page, by, before = f"{method} {path}", path if (method, path) in OPEN else "first", len(repository.commits)
        with struck(place, hub, fault, times, method, path):
            try:
                if (method, path) in OPEN:
                    place.ask("claim", by=by, owner="1-a")
                place.put(step, by=by)
            except StoreRaisedError as raised:
                assert raised.kind in ("UnreachableError", "ConfigError"), page
                assert place.ref["repo"] in str(raised), page
        assert hub.fsck() == [], page
        assert len(repository.commits) <= before + 1, page
        if (method, path) in OPEN:
            place.ask("claim", by=by, owner="1-a")
        place.put(step, by=by)
        assert hub.fsck() == [], page
        assert len(repository.commits) == before + 1, page
        assert f"checkpoints/run-a/checkpoint-{step}/manifest.json" in repository.files, page


@pytest.mark.parametrize(("fault", "times"), CASES)
def test_fault_in_a_restore_never_gives_another_one(place: Place, hub: HubServer, fault: str, times: int) -> None:
    """The checkpoint, or a sentence that names the repository or file; never that there is none, or other content."""
    hub.has_cdn = True
    place.put(1)
    for method, path in RESTORE:
        page, by = f"{method} {path}", path if (method, path) in OPEN else "first"
        with struck(place, hub, fault, times, method, path):
            try:
                assert place.ask("steps", by=by) == [1], page
                manifest.check(place.fetch(1, by=by), run_id="run-a", step=1)
            except StoreRaisedError as raised:
                is_file_damaged = fault in ("flipped", "page", "truncated") and raised.kind == "BrokenCheckpoint"
                assert raised.kind in ("UnreachableError", "ConfigError") or is_file_damaged, page
                assert place.ref["repo"] in str(raised) or is_file_damaged, page
            except manifest.BrokenCheckpoint as broken:
                assert path.rpartition("/")[2] in str(broken), page
        assert place.ask("steps", by=by) == [1], page
        manifest.check(place.fetch(1, by=by), run_id="run-a", step=1)


def test_one_commit_a_checkpoint_also_when_the_answer_is_lost(place: Place, hub: HubServer) -> None:
    before = len(repository_of(place, hub).commits)
    hub.fail(503, times=1, path="/commit/", is_answer_lost=True)
    with pytest.raises(StoreRaisedError) as raised:
        place.put(5)
    assert raised.value.kind == "UnreachableError"
    place.put(5)
    assert len(repository_of(place, hub).commits) == before + 1


@pytest.mark.parametrize(("method", "path"), [("GET", "/tree/"), ("HEAD", "/manifest.json"), ("GET", "/manifest.json")])
def test_silent_server_is_asked_once_a_try_and_not_for_ever(
    place: Place, hub: HubServer, method: str, path: str
) -> None:
    """Ours is the only patience: that of the client is none, or six minutes."""
    place.put(1)
    hub.heal()
    hub.disturb("hang", times=9, method=method, path=path)
    with pytest.raises(StoreRaisedError, match="does not answer"):
        place.ask("steps") if path == "/tree/" else place.fetch(1)
    assert len([request for request in hub.requests if request.method == method and path in request.path]) == 1
    assert hub.num_outwaited == 0


def test_server_that_asks_for_an_hour_is_not_waited_for(place: Place, hub: HubServer) -> None:
    hub.fail(429, times=1, path="/preupload/", headers={"Retry-After": "3600"})
    answer = place.answer("put", step=5, path=str(place.checkpoint(5)))
    assert 0 < max(answer["waits"]) < 60


def test_full_account_is_told_in_the_words_of_the_hub_and_passes_when_there_is_room(
    place: Place, hub: HubServer
) -> None:
    hub.quota_bytes = 5000
    with pytest.raises(StoreRaisedError) as raised:
        place.put(5)
    assert str(raised.value) == (
        f"ConfigError: hub_model_id: {place.ref['repo']}: checkpoints/run-a/checkpoint-5/config.json and 6 more: "
        "the Hub answered 403: Private repository storage limit reached, please upgrade your plan to increase your "
        "private storage limit; make room there, or have it pushed elsewhere"
    )
    assert place.ask("steps") == []
    hub.quota_bytes = 9000
    place.put(5)
    assert place.ask("steps") == [5]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory with room for 16 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk]).returncode != 0:
        pytest.skip("this container may not mount a tmpfs")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def test_full_disk_of_the_server_is_told_with_the_file_and_passes_when_there_is_room(
    place: Place, hub: HubServer, small_disk: Path
) -> None:
    hub.objects = Objects(small_disk)
    put = 0
    with pytest.raises(StoreRaisedError) as raised:
        for put in range(1, 9):
            place.put(put)
    sentence = rf"UnreachableError: hub_model_id: {place.ref['repo']}: \S+\.(safetensors|pt): \S+ answered 507"
    assert raised.match(f"^{sentence}; try again later$")
    assert put > 1
    assert hub.fsck() == []
    assert place.ask("steps") == list(range(1, put)), "what was there is there"
    subprocess.run(["mount", "-o", "remount,size=1m", small_disk], check=True)
    place.put(put)
    manifest.check(place.fetch(put), run_id="run-a", step=put)


def test_large_files_are_got_from_another_host_without_the_token(place: Place, hub: HubServer) -> None:
    hub.has_cdn = True
    place.put(5)
    manifest.check(place.fetch(5), run_id="run-a", step=5)
    assert {request.token for request in hub.requests if request.path.startswith("/_content/")} == {None}


def test_checkpoint_marked_as_broken_is_not_offered_and_stays(place: Place, hub: HubServer) -> None:
    place.put(5)
    place.put(6)
    there = {name for name in repository_of(place, hub).files if "/checkpoint-6/" in name}
    place.ask("quarantine", step=6)
    place.ask("quarantine", step=6)
    assert place.ask("steps", by="another machine") == [5]
    assert there < set(repository_of(place, hub).files)
    place.put(6)
    assert place.ask("steps", by="another machine") == [5, 6]


def test_mark_of_a_broken_one_that_is_not_answered_is_one_commit(place: Place, hub: HubServer) -> None:
    place.put(5)
    before = len(repository_of(place, hub).commits)
    hub.fail(503, times=1, path="/commit/", is_answer_lost=True)
    with suppress(StoreRaisedError):
        place.ask("quarantine", step=5)
    place.ask("quarantine", step=5)
    assert len(repository_of(place, hub).commits) == before + 1


def broken_at(place: Place, hub: HubServer, step: int) -> None:
    """Change a byte of the optimizer's states in the repository."""
    repository = repository_of(place, hub)
    name = f"checkpoints/run-a/checkpoint-{step}/optimizer.pt"
    repository.commit({**repository.files, name: flipped(repository.files[name])})


def got(hub: HubServer, step: int) -> int:
    """How often the optimizer's states of a checkpoint were got."""
    ends = f"/checkpoint-{step}/optimizer.pt"
    return len([request for request in hub.requests if request.method == "GET" and request.path.endswith(ends)])


def test_broken_checkpoint_is_passed_over_and_not_fetched_by_the_next_machine(
    place: Place, hub: HubServer, tmp_path: Path
) -> None:
    place.put(5)
    place.put(6)
    broken_at(place, hub, 6)
    first = place.ask("newest", by="machine", run=str(tmp_path / "a"))
    assert first["step"] == 5
    states = [(data["step"], data["state"]) for event, data in first["events"] if event == "checkpoint"]
    assert states == [(6, "quarantined"), (5, "fetched")]
    (told,) = [data["message"] for event, data in first["events"] if event == "warning"]
    assert told == (
        f"checkpoint-6 of hf://{place.ref['repo']} is broken and is passed over: optimizer.pt has changed since it "
        "was written"
    )
    assert got(hub, 6) == 2
    hub.heal()
    second = place.ask("newest", by="machine", run=str(tmp_path / "b"))
    assert second["step"] == 5
    assert got(hub, 6) == 0
    assert "checkpoints/run-a/checkpoint-6/optimizer.pt" in repository_of(place, hub).files


def test_checkpoint_that_was_broken_on_its_way_is_fetched_again(place: Place, hub: HubServer, tmp_path: Path) -> None:
    place.put(5)
    place.put(6)
    hub.disturb("flip", times=1, method="GET", path="/checkpoint-6/optimizer.pt")
    found = place.ask("newest", by="machine", run=str(tmp_path / "a"))
    assert found["step"] == 6
    assert [data["state"] for event, data in found["events"] if event == "checkpoint"] == ["fetched"]
