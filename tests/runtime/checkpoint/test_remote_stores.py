"""What every store outside the run directory keeps to: the real Hub client against our Hub, real s3fs against moto,
and a directory."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pytest
from hub_server import HubServer
from moto.server import ThreadedMotoServer
from store_worker import StoreRaisedError, StoreWorker

from ftl_runtime.checkpoint import manifest

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
FILES = {"model.safetensors": b"w" * 3000, "optimizer.pt": b"o" * 2000, "config.json": b"{}", "sub/progress.json": b"1"}


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        server.accounts["hf_ann"] = {"name": "ann", "auth": {"accessToken": {"role": "write"}}}
        yield server


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b").create_bucket(Bucket="lake")
    yield url
    server.stop()


@pytest.fixture(scope="module")
def worker(hub: HubServer, s3: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreWorker]:
    home = str(tmp_path_factory.mktemp("home"))
    mine = {
        "HF_HOME": home,
        "HOME": home,
        "HF_TOKEN": "hf_ann",
        "HF_HUB_DISABLE_XET": "1",
        "FTL_STORE_SILENCE_S": "0.5",
    }
    worker = StoreWorker({"HF_ENDPOINT": hub.url, "AWS_ENDPOINT_URL": s3, **KEYS, **mine})
    yield worker
    worker.close()


@dataclass
class Place:
    """One kind of store, empty, and how to ask it as several processes."""

    worker: StoreWorker
    ref: dict[str, Any]
    tmp: Path
    files: dict[int, dict[str, bytes]] = field(default_factory=dict)

    def ask(self, call: str, *, by: str = "first", **given: Any) -> Any:
        return self.worker.ask(self.ref, f"{self.tmp}/{by}", call, **given)["gave"]

    def checkpoint(self, step: int, run_id: str = "run-a") -> Path:
        path = self.tmp / f"local-{run_id}" / f"checkpoint-{step}"
        if not path.exists():
            (path / "sub").mkdir(parents=True)
            for name, content in FILES.items():
                (path / name).write_bytes(content + str(step).encode())
            manifest.seal(path, run_id=run_id, step=step)
        return path

    def put(self, step: int, *, by: str = "first", drop: tuple[int, ...] = ()) -> None:
        self.ask("put", by=by, step=step, path=str(self.checkpoint(step)), drop=list(drop))

    def fetch(self, step: int, *, by: str = "first") -> Path:
        dest = self.tmp / f"fetched-{step}-{os.urandom(4).hex()}"
        dest.mkdir()
        self.ask("fetch", by=by, step=step, dest=str(dest))
        return dest


@pytest.fixture(params=["hub", "s3", "file"])
def place(request: pytest.FixtureRequest, worker: StoreWorker, hub: HubServer, tmp_path: Path) -> Place:
    name = tmp_path.name.replace("_", "-")
    hub.heal()
    refs = {
        "hub": {"kind": "hub", "repo": f"ann/{name}"},
        "s3": {"kind": "url", "url": f"s3://lake/{name}"},
        "file": {"kind": "url", "url": f"file://{tmp_path}/bucket"},
    }
    return Place(worker, refs[request.param], tmp_path)


def test_checkpoint_comes_back_byte_for_byte(place: Place) -> None:
    place.ask("claim", owner="1-a")
    assert place.ask("steps") == []
    place.put(5)
    place.put(10)
    assert place.ask("steps", by="another machine") == [5, 10]
    got = place.fetch(10, by="another machine")
    manifest.check(got, run_id="run-a", step=10)
    assert {name: (got / name).read_bytes() for name in FILES} == {n: c + b"10" for n, c in FILES.items()}


def test_older_ones_go_when_they_are_superseded(place: Place) -> None:
    place.ask("claim", owner="1-a")
    for step in (1, 2, 3):
        place.put(step)
    place.put(4, drop=(1, 2, 9))
    assert place.ask("steps") == [3, 4]
    manifest.check(place.fetch(3), run_id="run-a", step=3)


def test_later_attempt_takes_over_and_the_earlier_one_is_told(place: Place) -> None:
    place.ask("claim", owner="1-a")
    place.put(1)
    place.ask("claim", by="second", owner="2-b")
    with pytest.raises(StoreRaisedError, match="another attempt of the run run-a writes there") as raised:
        place.put(2)
    assert raised.value.kind == "SupersededError"
    assert place.ask("steps", by="second") == [1]
    place.put(2, by="second")
    assert place.ask("steps", by="second") == [1, 2]


def test_copy_that_has_changed_here_is_not_sent(place: Place) -> None:
    place.ask("claim", owner="1-a")
    (place.checkpoint(7) / "optimizer.pt").write_bytes(b"O" * 2001)
    with pytest.raises(StoreRaisedError, match=r"optimizer\.pt has changed"):
        place.put(7)
    assert place.ask("steps") == []


def test_finished_model_is_put_at_the_top_and_replaced_as_a_whole(place: Place, hub: HubServer) -> None:
    place.ask("claim", owner="1-a")
    place.put(5)
    revision = place.ask("deliver", path=str(place.checkpoint(9)))
    if place.ref["kind"] == "hub":
        repository = hub.repositories["model", place.ref["repo"]]
        assert revision == repository.refs["main"]
        assert repository.is_private
        assert repository.files["model.safetensors"] == b"w" * 3000 + b"9"
    assert place.ask("deliver", path=str(place.checkpoint(9))) == revision  # nothing was to be done
    assert place.ask("steps") == [5]


def test_broken_content_is_found_and_mended_by_the_next_put(place: Place, hub: HubServer, s3: str) -> None:
    place.ask("claim", owner="1-a")
    place.put(5)
    place.put(6)
    flip(place, hub, s3)
    with pytest.raises(manifest.BrokenCheckpoint, match=r"optimizer\.pt has changed"):
        manifest.check(place.fetch(6), run_id="run-a", step=6)
    place.ask("quarantine", step=6)
    place.put(6)
    manifest.check(place.fetch(6), run_id="run-a", step=6)


def flip(place: Place, hub: HubServer, s3: str) -> None:
    """Change a byte of the optimizer's states in the store."""
    broken = b"X" + FILES["optimizer.pt"][1:] + b"6"
    if place.ref["kind"] == "hub":
        repository = hub.repositories["model", place.ref["repo"]]
        repository.commit({**repository.files, "checkpoints/run-a/checkpoint-6/optimizer.pt": broken})
    elif place.ref["url"].startswith("s3"):
        client = boto3.client("s3", endpoint_url=s3, aws_access_key_id="a", aws_secret_access_key="b")
        key = place.ref["url"].removeprefix("s3://lake/") + "/run-a/checkpoint-6/optimizer.pt"
        client.put_object(Bucket="lake", Key=key, Body=broken)
    else:
        Path(place.ref["url"].removeprefix("file://"), "run-a/checkpoint-6/optimizer.pt").write_bytes(broken)


@pytest.mark.parametrize("place", ["s3", "file"], indirect=True)
def test_quarantined_one_is_not_offered(place: Place) -> None:
    place.ask("claim", owner="1-a")
    place.put(5)
    place.put(6)
    place.ask("quarantine", step=6)
    assert place.ask("steps") == [5]


@pytest.mark.parametrize("place", ["file"], indirect=True)
def test_manifest_that_leads_out_of_its_place_is_not_followed(place: Place, tmp_path: Path) -> None:
    place.ask("claim", owner="1-a")
    place.put(3)
    sealed = tmp_path / "bucket/run-a/checkpoint-3/manifest.json"
    sealed.write_text(sealed.read_text().replace('"config.json"', '"../../stolen"'))
    with pytest.raises(StoreRaisedError, match="not a plain path inside it"):
        place.fetch(3)


@pytest.mark.parametrize("place", ["hub"], indirect=True)
def test_one_commit_a_checkpoint_also_when_the_answer_is_lost(place: Place, hub: HubServer) -> None:
    place.ask("claim", owner="1-a")
    repository = hub.repositories["model", place.ref["repo"]]
    before = len(repository.commits)
    hub.fail(503, times=1, path="/commit/", is_answer_lost=True)
    with pytest.raises(StoreRaisedError) as raised:
        place.put(5)
    assert raised.value.kind == "UnreachableError"
    place.put(5)
    assert len(repository.commits) == before + 1


@pytest.mark.parametrize("place", ["hub"], indirect=True)
def test_server_that_asks_for_an_hour_is_not_waited_for(place: Place, hub: HubServer) -> None:
    place.ask("claim", owner="1-a")
    hub.fail(429, times=1, path="/preupload/", headers={"Retry-After": "3600"})
    answer = place.worker.ask(place.ref, f"{place.tmp}/first", "put", step=5, path=str(place.checkpoint(5)))
    assert 0 < max(answer["waits"]) < 60


FAULTS: dict[str, dict[str, Any]] = {
    "401": {"status": 401},
    "403": {"status": 403},
    "412": {"status": 412},
    "413": {"status": 413},
    "429": {"status": 429, "headers": {"Retry-After": "7"}},
    "500": {"status": 500},
    "503": {"status": 503},
    "507": {"status": 507},
    "lost answer": {"status": 504, "is_answer_lost": True},
    "reset": {"kind": "reset"},
    "truncated": {"kind": "truncate"},
    "page": {"kind": "page"},
    "hanging": {"kind": "hang"},
}
PAGES = {
    "head": ("GET", "/revision/"),
    "owner": ("GET", "/resolve/"),
    "paths": ("POST", "/paths-info/"),
    "preupload": ("POST", "/preupload/"),
    "batch": ("POST", "/objects/batch"),
    "content": ("PUT", "/_objects/"),
    "verify": ("POST", "/_verify"),
    "commit": ("POST", "/commit/"),
}


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("place", ["hub"], indirect=True)
def test_fault_on_any_page_leaves_nothing_half_and_passes(place: Place, hub: HubServer, fault: str, times: int) -> None:
    """Of each page that an upload asks for: success or a sentence that names the repository, nothing half there, and
    the same call afterwards ends with one commit."""
    place.ask("claim", owner="1-a")
    repository = hub.repositories["model", place.ref["repo"]]
    for step, (page, (method, path)) in enumerate(PAGES.items(), start=1):
        before = len(repository.commits)
        wanted = FAULTS[fault]
        if "status" in wanted:
            hub.fail(**wanted, times=times, method=method, path=path)
        else:
            hub.disturb(wanted["kind"], times=times, method=method, path=path)
        try:
            place.put(step)
        except StoreRaisedError as raised:
            assert place.ref["repo"] in str(raised), page
        hub.heal()
        assert hub.fsck() == [], page
        assert len(repository.commits) <= before + 1, page
        place.put(step)
        assert hub.fsck() == [], page
        assert len(repository.commits) == before + 1, page
        assert f"checkpoints/run-a/checkpoint-{step}/manifest.json" in repository.files, page


@pytest.mark.parametrize("fault", ["403", "429", "503", "reset", "truncated", "flip", "hanging"])
@pytest.mark.parametrize("place", ["hub"], indirect=True)
def test_fault_while_a_checkpoint_is_fetched_never_gives_another_one(place: Place, hub: HubServer, fault: str) -> None:
    place.ask("claim", owner="1-a")
    place.put(1)
    for name in ("model.safetensors", "manifest.json", "sub/progress.json"):
        wanted = FAULTS.get(fault, {"kind": fault})
        if "status" in wanted:
            hub.fail(**wanted, times=1, method="GET", path=f"/checkpoint-1/{name}")
        else:
            hub.disturb(wanted["kind"], times=1, method="GET", path=f"/checkpoint-1/{name}")
        try:
            manifest.check(place.fetch(1, by="second"), run_id="run-a", step=1)
        except StoreRaisedError as raised:
            assert place.ref["repo"] in str(raised) or "manifest.json" in str(raised)
        except manifest.BrokenCheckpoint as broken:
            assert name in str(broken)
        hub.heal()
        manifest.check(place.fetch(1, by="third"), run_id="run-a", step=1)
