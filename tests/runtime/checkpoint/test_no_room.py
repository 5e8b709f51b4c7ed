"""A disk that is full, or may not be written, while something is staged on it: nothing is lost, and the sentence names
the place. The disks are real ones, of a few MB."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ftl.contract import CHECKPOINTS_DIR, JobSpec, Paths, UrlRef
from ftl.errors import StorageError
from ftl_runtime.checkpoint import manifest, publish, restore
from ftl_runtime.checkpoint.bucket import BucketStore
from ftl_runtime.checkpoint.courier import Courier
from ftl_runtime.checkpoint.store import Checkpoint
from ftl_runtime.checkpoint.volume import VolumeStore


class Told:
    """An emit that keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, event: str, data: dict[str, Any]) -> None:
        self.events.append((event, data))

    def of(self, state: str) -> list[int]:
        return [data["step"] for event, data in self.events if event == "checkpoint" and data["state"] == state]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB and 60 files."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=60", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(place: Path) -> None:
    """Until not one more byte fits."""
    with pytest.raises(OSError, match="No space left"), (place / "filler").open("wb") as file:
        while True:
            file.write(b"x" * 4096)
            file.flush()


def fill_with_files(place: Path) -> None:
    """Until not one more name fits."""
    with pytest.raises(OSError, match="No space left"):
        for number in range(100):
            (place / f"filler-{number}").touch()


def wait_until(claim: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not claim():
        assert time.monotonic() < until
        time.sleep(0.02)


def save(run_dir: Path, step: int) -> Checkpoint:
    store = VolumeStore(run_dir / CHECKPOINTS_DIR, "run-a", Told())
    stage = store.stage(step)
    (stage / "model.safetensors").write_bytes(os.urandom(200_000))
    return store.commit(stage, step)


@contextmanager
def sending(run_dir: Path, bucket: Path, told: Told) -> Iterator[Courier]:
    """A courier at work; it has sent what it could when the block ends."""
    ref = UrlRef(url=f"file://{bucket}")
    courier = Courier(BucketStore(ref, "run-a"), ref, run_dir, 0, "1-a", told)
    courier.start()
    yield courier
    courier.end(None)
    courier.join(60)
    assert courier.is_done


@pytest.mark.parametrize("fill_up", [fill, fill_with_files])
def test_checkpoint_is_sent_though_nothing_can_be_staged_beside_it(
    disk: Path, tmp_path: Path, fill_up: Callable[[Path], None]
) -> None:
    checkpoint = save(disk, 3)
    fill_up(disk)
    told = Told()
    with sending(disk, tmp_path / "bucket", told):
        pass
    assert told.of("pushed") == [3]
    manifest.check(tmp_path / "bucket/run-a/checkpoint-3", run_id="run-a", step=3)
    manifest.check(checkpoint.path, run_id="run-a", step=3)


def test_checkpoint_that_is_dropped_while_it_is_sent_unstaged_is_given_up_for_the_next(
    disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = save(disk, 3)
    fill_with_files(disk)
    is_reading, may_go_on = threading.Event(), threading.Event()
    digest = manifest.digest

    def read_slowly(path: Path, **rest: Any) -> tuple[int, str]:
        if path.name == "model.safetensors" and "checkpoint-3" in str(path):
            is_reading.set()
            may_go_on.wait(30)
        return digest(path, **rest)

    monkeypatch.setattr(manifest, "digest", read_slowly)
    told = Told()
    with sending(disk, tmp_path / "bucket", told):
        assert is_reading.wait(30)
        shutil.rmtree(first.path)  # as `prune` does when it is superseded
        save(disk, 6)
        may_go_on.set()
    assert told.of("pushed") == [6]
    assert BucketStore(UrlRef(url=f"file://{tmp_path}/bucket"), "run-a").steps() == [6]


def test_full_disk_of_the_store_is_waited_for_and_keeps_what_it_has(disk: Path, tmp_path: Path) -> None:
    told = Told()
    with sending(tmp_path, disk, told):
        save(tmp_path, 3)
        wait_until(lambda: told.of("pushed") == [3])
        fill(disk)
        save(tmp_path, 6)
        (disk / "run-a/checkpoint-6").mkdir()
        (disk / "run-a/checkpoint-6/model.safetensors.0123abcd.part").touch()  # of a sender that was killed
        wait_until(lambda: any(event == "warning" for event, _ in told.events))
        manifest.check(disk / "run-a/checkpoint-3", run_id="run-a", step=3)
        (disk / "filler").unlink()
    assert told.of("pushed") == [3, 6]
    manifest.check(disk / "run-a/checkpoint-6", run_id="run-a", step=6)
    sentence = f"checkpoints: file://{disk}/run-a: cannot be stored here: no space, or no access"
    said = [data["message"] for event, data in told.events if event == "warning"]
    assert said == [f"{sentence}; training goes on, and it is tried again", f"file://{disk}/run-a answers again"]


def test_fetch_to_a_full_disk_ends_with_a_sentence_about_the_disk(disk: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    told = Told()
    for step in (3, 6):
        save(other, step)
    with sending(other, tmp_path / "bucket", told):
        pass
    save(disk, 3)
    local = VolumeStore(disk / CHECKPOINTS_DIR, "run-a", told)
    fill(disk)
    job = JobSpec(run_id="run-a", stores=(UrlRef(url=f"file://{tmp_path}/bucket"),))
    with pytest.raises(StorageError) as caught:
        restore.newest(local, job, told)
    assert str(caught.value).startswith(f"{disk}/checkpoints: ")
    assert str(caught.value).endswith("; free some space, then resume")
    (disk / "filler").unlink()
    found = restore.newest(local, job, told)
    assert found is not None and found.step == 6
    assert sorted(path.name for path in (disk / CHECKPOINTS_DIR).iterdir()) == ["checkpoint-3", "checkpoint-6"]
    assert not told.of("quarantined")


def test_model_that_cannot_be_staged_for_delivery_names_the_disk_and_leaves_no_half(disk: Path, tmp_path: Path) -> None:
    (disk / "output").mkdir()
    (disk / "output/model.safetensors").write_bytes(b"weights")
    manifest.seal(disk / "output", run_id="run-a", step=9)
    job = JobSpec(run_id="run-a", paths=Paths(bundle=str(tmp_path), run=str(disk), cache=str(tmp_path)))
    fill_with_files(disk)
    with pytest.raises(StorageError) as caught:
        publish.prepare(job, None)
    assert str(caught.value) == f"{disk}/.outbox: the disk is full; free some space, then resume"
    assert not list(disk.glob(".outbox/*"))
    manifest.check(disk / "output", run_id="run-a", step=9)


def test_place_that_may_not_be_written_is_named(disk: Path) -> None:
    save(disk, 3)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    store = VolumeStore(disk / CHECKPOINTS_DIR, "run-a", Told())
    with pytest.raises(
        StorageError, match=rf"^{disk}/checkpoints/\.tmp-6-\w+: cannot be written: Read-only file system$"
    ):
        store.stage(6)
    found = store.latest_valid()
    assert found is not None and found.step == 3
