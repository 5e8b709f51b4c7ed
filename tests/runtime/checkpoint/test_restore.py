"""Which checkpoint a run goes on from, over its own directory and its stores: damage of any kind is found and told."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftl.contract import JobSpec, UrlRef
from ftl.errors import ConfigError
from ftl.sources.retry import UnreachableError
from ftl_runtime.checkpoint import manifest, patience, restore
from ftl_runtime.checkpoint.bucket import BucketStore
from ftl_runtime.checkpoint.remote import Told
from ftl_runtime.checkpoint.store import Checkpoint
from ftl_runtime.checkpoint.volume import VolumeStore

FILES = ("model.safetensors", "optimizer.pt", "rng_state.pth", "sub/progress.json", "manifest.json")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES: tuple[Callable[[Path], None], ...] = (flip, truncate, Path.unlink)


class Places:
    """A run directory and a bucket, with the checkpoints of steps 5 and 10 wherever they are put."""

    def __init__(self, root: Path) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.local_root, self.bucket_root = root / "checkpoints", root / "bucket"
        self.emit = lambda event, data: self.events.append((event, data))
        self.local = VolumeStore(self.local_root, "run-a", self.emit)
        self.ref = UrlRef(url=f"file://{self.bucket_root}")
        self.bucket = BucketStore(self.ref, "run-a")
        self.bucket.claim("1-a")

    def save(self, step: int, *, here: bool, there: bool, run_id: str = "run-a") -> None:
        store = VolumeStore(self.local_root, run_id, self.emit)
        stage = store.stage(step)
        for name in FILES[:-1]:
            (stage / name).parent.mkdir(exist_ok=True)
            (stage / name).write_bytes(f"{name} of {step}".encode() * 50)
        checkpoint = store.commit(stage, step)
        if there:
            self.bucket.put(checkpoint, [], lambda done, total: None)
        if not here:
            shutil.rmtree(checkpoint.path)

    def newest(self) -> Checkpoint | None:
        return restore.newest(self.local, JobSpec(run_id="run-a", stores=(self.ref,)), self.emit)

    def told(self) -> list[str]:
        return [data["message"] for event, data in self.events if event == "warning"]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


@pytest.mark.parametrize("damage", DAMAGES, ids=["flipped", "truncated", "deleted"])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", ["local", "remote"])
def test_damage_of_any_file_is_found_and_the_older_one_is_used(
    places: Places, place: str, name: str, damage: Callable[[Path], None]
) -> None:
    is_local = place == "local"
    for step in (5, 10):
        places.save(step, here=is_local, there=not is_local)
    root = places.local_root if is_local else places.bucket_root / "run-a"
    damage(root / "checkpoint-10" / name)
    found = places.newest()
    assert found is not None and found.step == 5
    manifest.check(found.path, run_id="run-a", step=5)
    if is_local or name != "manifest.json" or damage is not Path.unlink:  # without a manifest it never was whole there
        assert any("checkpoint-10" in sentence for sentence in places.told())
    kept = [path for path in places.local_root.rglob("*") if "quarantine" in path.parts] if is_local else [root]
    assert kept and (is_local or (root / "checkpoint-10").is_dir()), "what is broken is set aside, not deleted"
    again = places.newest()
    assert again is not None and again.step == 5


def test_step_that_is_newer_elsewhere_is_fetched(places: Places) -> None:
    places.save(5, here=True, there=True)
    places.save(10, here=False, there=True)
    found = places.newest()
    assert found is not None and found.step == 10
    (fetched,) = [data for event, data in places.events if event == "checkpoint" and data["state"] == "fetched"]
    assert fetched["step"] == 10


def test_local_one_is_used_without_a_fetch_where_it_is_as_new(places: Places) -> None:
    places.save(10, here=True, there=True)
    found = places.newest()
    assert found == Checkpoint(10, places.local_root / "checkpoint-10")
    assert not [data for event, data in places.events if event == "checkpoint"]


def test_broken_local_one_is_replaced_by_its_copy(places: Places) -> None:
    places.save(10, here=True, there=True)
    flip(places.local_root / "checkpoint-10/optimizer.pt")
    found = places.newest()
    assert found is not None and found.step == 10
    manifest.check(found.path, run_id="run-a", step=10)


def test_picking_does_not_look_at_times(places: Places) -> None:
    for step in (5, 10):
        places.save(step, here=True, there=False)
    for number, path in enumerate(sorted(places.local_root.rglob("*"))):
        os.utime(path, (0, 0) if "checkpoint-10" in str(path) else (4e9 + number,) * 2)
    found = places.newest()
    assert found is not None and found.step == 10


def test_manifest_of_another_run_is_passed_over(places: Places) -> None:
    places.save(5, here=False, there=True)
    places.save(10, here=False, there=False)
    other = BucketStore(places.ref, "run-b")
    other.claim("1-b")
    stage = places.local_root / "other"
    stage.mkdir()
    (stage / "model.safetensors").write_bytes(b"x")
    manifest.seal(stage, run_id="run-b", step=10)
    other.put(Checkpoint(10, stage), [], lambda done, total: None)
    shutil.copytree(places.bucket_root / "run-b/checkpoint-10", places.bucket_root / "run-a/checkpoint-10")
    found = places.newest()
    assert found is not None and found.step == 5
    assert any("it belongs to the run 'run-b'" in sentence for sentence in places.told())


def test_store_that_refuses_is_an_error_and_not_a_fresh_start(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: BucketStore) -> list[int]:
        raise ConfigError("checkpoints: access is refused")

    monkeypatch.setattr(BucketStore, "steps", refuse)
    with pytest.raises(ConfigError, match="access is refused"):
        places.newest()


class Clock:
    """Time as the patience of a restore sees it: it goes on while it waits, and where it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(patience, "time", clock)
    return clock


def test_start_waits_three_minutes_for_a_store_that_does_not_answer_and_says_so(
    places: Places, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: BucketStore) -> list[int]:
        clock.sleep(10)
        raise UnreachableError("checkpoints: there: does not answer")

    monkeypatch.setattr(BucketStore, "steps", fail)
    with pytest.raises(UnreachableError, match="has not answered for 180 s, and what it holds may be newer"):
        places.newest()
    assert 150 <= clock.now - 1000 <= 190
    assert [sentence.partition("; ")[2] for sentence in places.told()] == [
        "it is tried again for 180 s, for it may hold a newer checkpoint"
    ]


def test_start_has_patience_with_a_store_from_which_something_comes(
    places: Places, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    places.save(10, here=False, there=True)
    fetch, failures = BucketStore.fetch, [UnreachableError("reset")] * 5

    def stumble(self: BucketStore, step: int, dest: Path, told: Told) -> None:
        clock.sleep(900)
        told(1, 2)
        if failures:
            raise failures.pop()
        fetch(self, step, dest, told)

    monkeypatch.setattr(BucketStore, "fetch", stumble)
    found = places.newest()
    assert found is not None and found.step == 10
    assert clock.now - 1000 > 6 * 900
