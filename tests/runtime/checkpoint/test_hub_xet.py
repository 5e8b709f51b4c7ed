"""Checkpoints on a Hub with xet, through the real hf_xet: what goes over, and what goes wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_buckets import Bucket
from hub_faults import flipped
from hub_server import HubServer
from store_place import FILES, Place
from store_worker import StoreRaisedError, StoreWorker

from ftl_runtime.checkpoint import manifest

IMPATIENT = {
    "HF_XET_CLIENT_READ_TIMEOUT": "500ms",
    "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1",
    "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms",
    "FTL_STORE_SILENCE_S": "0.5",
}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("xet")


@pytest.fixture(scope="module")
def server(storage: Path) -> Iterator[HubServer]:
    with HubServer(xet=storage) as server:
        server.accounts["hf_ann"] = {"name": "ann", "auth": {"accessToken": {"role": "write"}}}
        yield server


@pytest.fixture(scope="module")
def worker(server: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreWorker]:
    home = str(tmp_path_factory.mktemp("home"))
    mine = {"HF_ENDPOINT": server.url, "HF_TOKEN": "hf_ann", "HF_HOME": home, "HOME": home, "HF_HUB_DISABLE_XET": "0"}
    worker = StoreWorker({**mine, **IMPATIENT})
    yield worker
    worker.close()


@pytest.fixture
def place(worker: StoreWorker, server: HubServer, tmp_path: Path) -> Place:
    server.heal()
    place = Place(worker, {"kind": "hub", "repo": f"ann/{tmp_path.name.replace('_', '-')}"}, tmp_path)
    place.ask("claim", owner="1-a")
    return place


def test_checkpoint_goes_and_comes_through_xet(place: Place, server: HubServer) -> None:
    place.put(5)
    assert server.repositories["model", place.ref["repo"]].files["model.safetensors"] == b"w" * 3000 + b"5"
    got = place.fetch(5, by="another machine")
    manifest.check(got, run_id="run-a", step=5)
    assert {name: (got / name).read_bytes() for name in FILES} == {n: c + b"5" for n, c in FILES.items()}
    asked = {(request.method, request.path.split("/")[-2]) for request in server.requests}
    assert {("GET", "xet-write-token"), ("GET", "xet-read-token")} <= asked
    assert not [request for request in server.requests if request.path.startswith("/_objects/")]
    assert ("GET", f"/{place.ref['repo']}/resolve/main/model.safetensors") not in asked
    assert server.fsck() == []


@pytest.mark.parametrize("fault", ["401", "403", "429", "503", "away", "reset", "truncate", "page", "hang"])
def test_fault_where_a_token_of_xet_is_asked_for_passes(place: Place, server: HubServer, fault: str) -> None:
    repository = server.repositories["model", place.ref["repo"]]
    for times in (1, 2):
        before = len(repository.commits)
        for page, call in (("/xet-write-token/", place.put), ("/xet-read-token/", place.fetch)):
            if fault.isdigit():
                server.fail(int(fault), times=times, path=page)
            else:
                server.disturb(fault, times=times, path=page)  # type: ignore[arg-type]
            try:
                call(times, by=f"{page} {times}" if call == place.fetch else "first")
            except StoreRaisedError as raised:
                assert raised.kind in ("UnreachableError", "ConfigError"), page
                assert place.ref["repo"] in str(raised), page
            server.heal()
            call(times)
        assert len(repository.commits) == before + 1
        assert server.fsck() == []
        manifest.check(place.fetch(times), run_id="run-a", step=times)


def test_lost_answer_to_a_commit_is_one_commit(place: Place, server: HubServer) -> None:
    repository = server.repositories["model", place.ref["repo"]]
    before = len(repository.commits)
    server.fail(503, times=1, path="/commit/", is_answer_lost=True)
    with pytest.raises(StoreRaisedError, match=f"{place.ref['repo']}: step 5: "):
        place.put(5)
    place.put(5)
    assert len(repository.commits) == before + 1


def test_content_that_the_storage_has_otherwise_is_found(place: Place, storage: Path) -> None:
    place.put(77)
    contents = {path: path.read_bytes() for path in storage.rglob("default.*") if path.suffix != ".tagset"}
    for path, content in contents.items():
        path.chmod(0o600)
        path.write_bytes(flipped(content))
    with pytest.raises((StoreRaisedError, manifest.BrokenCheckpoint)):
        manifest.check(place.fetch(77), run_id="run-a", step=77)
    for path, content in contents.items():
        path.write_bytes(content)
    manifest.check(place.fetch(77), run_id="run-a", step=77)


def test_storage_that_fails_is_a_failure_that_may_pass(place: Place, storage: Path) -> None:
    aside = storage.with_name("aside")
    storage.rename(aside)
    storage.write_text("no directory")
    with pytest.raises(StoreRaisedError) as raised:
        place.put(78, by="second")
    storage.unlink()
    aside.rename(storage)
    assert raised.value.kind == "UnreachableError"
    assert f"hub_model_id: {place.ref['repo']}: " in str(raised.value)
    assert "the client of the Hub failed (" in str(raised.value)


BUCKET_PAGES = (
    ("GET", "/tree/"),
    ("POST", "/paths-info"),
    ("POST", "/batch"),
    ("GET", "/xet-write-token"),
    ("GET", ""),
)
"""Of a bucket, in the order of a push; then whatever else is read."""


@pytest.mark.parametrize("fault", ["404", "503", "reset", "hang", "page"])
def test_fault_at_a_bucket_leaves_nothing_half_and_passes(
    worker: StoreWorker, server: HubServer, tmp_path: Path, fault: str
) -> None:
    server.heal()
    name = f"ann/{tmp_path.name.replace('_', '-')}"
    server.buckets[name] = Bucket(name, frozenset({"hf_ann"}), is_private=True)
    place = Place(worker, {"kind": "url", "url": f"hf://buckets/{name}/place"}, tmp_path)
    place.ask("claim", owner="1-a")
    place.put(1)
    for step, (method, page) in enumerate(BUCKET_PAGES, start=2):
        for call in (lambda step=step: place.put(step), lambda step=step: place.fetch(step)):
            if fault.isdigit():
                server.fail(int(fault), times=2, method=method, path=page)
            else:
                server.disturb(fault, times=1 if fault == "hang" else 2, method=method, path=page)  # type: ignore[arg-type]
            try:
                call()
            except StoreRaisedError as raised:
                is_file_damaged = raised.kind == "BrokenCheckpoint" and fault in ("404", "page", "truncate")
                assert raised.kind in ("UnreachableError", "ConfigError") or is_file_damaged, page
            server.heal()
            call()
        assert place.ask("steps") == list(range(1, step + 1)), page
        manifest.check(place.fetch(step), run_id="run-a", step=step)
