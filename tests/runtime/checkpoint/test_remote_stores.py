"""What every store outside the run directory keeps to: the real Hub client against our Hub, real s3fs against moto,
real gcsfs against an emulator, buckets of our Hub, and a directory."""

import json
from pathlib import Path
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest
from hub_buckets import Bucket
from hub_server import HubServer
from store_place import FILES, Place, gs_env, s3_client, s3_env
from store_worker import StoreRaisedError, StoreWorker

from ftl_runtime.checkpoint import manifest


@pytest.fixture(params=["hub", "s3", "gs", "hf", "file"])
def place(request: pytest.FixtureRequest, worker: StoreWorker, hub: HubServer, tmp_path: Path) -> Place:
    name = tmp_path.name.replace("_", "-")
    match request.param:
        case "hub":
            return Place(worker, {"kind": "hub", "repo": f"ann/{name}"}, tmp_path)
        case "s3":
            return Place(
                worker, {"kind": "url", "url": f"s3://lake/{name}"}, tmp_path, s3_env(request.getfixturevalue("s3"))
            )
        case "gs":
            return Place(
                worker, {"kind": "url", "url": f"gs://lake/{name}"}, tmp_path, gs_env(request.getfixturevalue("gs"))
            )
        case "hf":
            hub.buckets[f"ann/{name}"] = Bucket(f"ann/{name}", frozenset({"hf_ann"}), is_private=True)
            return Place(worker, {"kind": "url", "url": f"hf://buckets/ann/{name}/place"}, tmp_path)
        case _:
            return Place(worker, {"kind": "url", "url": f"file://{tmp_path}/bucket"}, tmp_path)


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


def test_broken_content_is_found_and_mended_by_the_next_put(place: Place, hub: HubServer) -> None:
    place.ask("claim", owner="1-a")
    place.put(5)
    place.put(6)
    flip(place, hub)
    with pytest.raises(manifest.BrokenCheckpoint, match=r"optimizer\.pt has changed"):
        manifest.check(place.fetch(6), run_id="run-a", step=6)
    place.ask("quarantine", step=6)
    place.put(6)
    manifest.check(place.fetch(6), run_id="run-a", step=6)


def flip(place: Place, hub: HubServer) -> None:
    """Change a byte of the optimizer's states in the store."""
    broken = b"X" + FILES["optimizer.pt"][1:] + b"6"
    if place.ref["kind"] == "hub":
        repository = hub.repositories["model", place.ref["repo"]]
        repository.commit({**repository.files, "checkpoints/run-a/checkpoint-6/optimizer.pt": broken})
        return
    scheme, _, address = place.ref["url"].partition("://")
    key = f"{address.removeprefix('lake/')}/run-a/checkpoint-6/optimizer.pt"
    if scheme == "s3":
        s3_client(place.env["AWS_ENDPOINT_URL"]).put_object(Bucket="lake", Key=key, Body=broken)
    elif scheme == "hf":
        bucket = hub.buckets[address.removeprefix("buckets/").removesuffix("/place")]
        bucket.files["place/run-a/checkpoint-6/optimizer.pt"] = broken
    elif scheme == "gs":
        query = urlencode({"uploadType": "media", "name": key})
        url = f"{place.env['STORAGE_EMULATOR_HOST']}/upload/storage/v1/b/lake/o?{query}"
        urlopen(Request(url, broken, {"Content-Type": "application/octet-stream"})).close()
    else:
        Path(key).write_bytes(broken)


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


@pytest.mark.parametrize("place", ["s3", "file"], indirect=True)
def test_file_that_is_larger_than_its_manifest_says_is_not_fetched(place: Place, s3: str) -> None:
    place.ask("claim", owner="1-a")
    place.put(3)
    if place.ref["url"].startswith("s3"):
        bucket, _, key = place.ref["url"].removeprefix("s3://").partition("/")
        name = f"{key}/run-a/checkpoint-3/optimizer.pt"
        s3_client(s3).put_object(Bucket=bucket, Key=name, Body=b"x" * 100_000)
    else:
        (place.tmp / "bucket/run-a/checkpoint-3/optimizer.pt").write_bytes(b"x" * 100_000)
    dest = place.tmp / "fetched"
    dest.mkdir()
    with pytest.raises(StoreRaisedError, match="is missing, or has another size than was written"):
        place.ask("fetch", step=3, dest=str(dest))
    assert list(dest.iterdir()) == []


@pytest.mark.parametrize("place", ["file"], indirect=True)
def test_checkpoint_that_does_not_fit_here_is_a_sentence_and_not_passed_over(place: Place, tmp_path: Path) -> None:
    place.ask("claim", owner="1-a")
    place.put(3)
    folder = tmp_path / "bucket/run-a/checkpoint-3"
    with (folder / "config.json").open("r+b") as file:
        file.truncate(1 << 43)  # 8 TiB of nothing, which takes no room
    sealed = json.loads((folder / "manifest.json").read_text())
    sealed["files"]["config.json"]["size"] = 1 << 43
    (folder / "manifest.json").write_text(json.dumps(sealed))
    with pytest.raises(StoreRaisedError, match=r"GiB free, and the checkpoint takes 8192\.0 GiB") as raised:
        place.fetch(3)
    assert raised.value.kind == "StorageError"


@pytest.mark.parametrize("place", ["hub"], indirect=True)
def test_branch_is_made_and_written_to_alone(place: Place, hub: HubServer) -> None:
    place.ref["branch"] = "trial"
    place.ask("claim", owner="1-a")
    place.put(5)
    assert place.ask("steps", by="another machine") == [5]
    manifest.check(place.fetch(5, by="another machine"), run_id="run-a", step=5)
    repository = hub.repositories["model", place.ref["repo"]]
    assert set(repository.files) == {".gitattributes"}
    assert "model.safetensors" in repository.commits[repository.refs["trial"]]
