"""What a courier drops from a store, and when."""

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from ftl.contract import JobSpec, Paths, UrlRef
from ftl.sources.retry import UnreachableError
from ftl_runtime.checkpoint import courier, manifest, sync
from ftl_runtime.checkpoint.courier import Courier
from ftl_runtime.checkpoint.manifest import BrokenCheckpoint
from ftl_runtime.checkpoint.remote import Told
from ftl_runtime.checkpoint.store import Checkpoint


class FakeStore:
    """Has steps, and fails at `put` with what it was told to, once each."""

    label = "file:///there"

    def __init__(self, *steps: int, failures: list[Exception] | None = None) -> None:
        self.there = set(steps)
        self._failures = failures or []
        self.bundle: Path | None = None
        self.refusals: list[Exception] = []
        self.tries = 0

    def claim(self, owner: str) -> None: ...

    def steps(self) -> list[int]:
        return sorted(self.there)

    def put(self, checkpoint: Checkpoint, drop: Collection[int], told: Told) -> None:
        if self._failures:
            raise self._failures.pop(0)
        self.there = self.there - set(drop) | {checkpoint.step}

    def keep_bundle(self, directory: Path, scratch: Path) -> None:
        self.tries += 1
        if self.refusals:
            raise self.refusals.pop()
        self.bundle = directory

    def fetch(self, step: int, dest: Path, told: Told) -> None: ...

    def quarantine(self, step: int) -> None: ...

    def deliver(self, directory: Path, told: Told) -> str | None: ...


@pytest.fixture
def send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """send(store, *steps): what becomes of the store when the run directory has these checkpoints."""
    monkeypatch.setattr(courier, "DELAYS_S", (0.0,))

    def sent(store: FakeStore, *steps: int) -> set[int]:
        for step in steps:
            path = tmp_path / f"checkpoints/checkpoint-{step}"
            path.mkdir(parents=True)
            (path / "model.safetensors").write_bytes(b"w")
            manifest.seal(path, run_id="run-a", step=step)
        sender = Courier(store, UrlRef(url="file:///there"), tmp_path, 0, "1-a", lambda event, data: None)
        sender.end(None)
        sender.run()
        assert sender.is_done
        return store.there

    return sent


def test_newest_one_that_was_there_stays_beside_the_one_that_is_sent(send: Any) -> None:
    assert send(FakeStore(2, 4, 6), 8) == {6, 8}


def test_best_one_that_the_run_keeps_is_kept_there(send: Any) -> None:
    assert send(FakeStore(2, 4, 6), 2, 8) == {2, 6, 8}


def test_nothing_goes_before_the_one_that_supersedes_it_was_verified(send: Any) -> None:
    store = FakeStore(2, 4, 6, failures=[BrokenCheckpoint("model.safetensors has changed")])
    assert send(store, 8) == {2, 4, 6}


def test_what_a_failed_try_would_have_dropped_goes_with_the_next(send: Any) -> None:
    store = FakeStore(2, 4, 6, failures=[UnreachableError("no answer"), UnreachableError("no answer")])
    assert send(store, 8) == {6, 8}


def test_bundle_goes_there_while_there_is_no_checkpoint_to_send(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the store does not take is tried again, and holds nothing up."""
    monkeypatch.setattr(courier, "DELAYS_S", (0.0,))
    store, bundle = FakeStore(), tmp_path / "bundle"
    store.refusals = [UnreachableError("no answer"), OSError("no room")]
    events: list[str] = []
    ref = UrlRef(url="file:///there")
    sender = Courier(store, ref, tmp_path, 0, "1-a", lambda event, data: events.append(event), bundle)
    sender.start()
    give_up = time.monotonic() + 30
    while store.bundle is None and time.monotonic() < give_up:
        time.sleep(0.01)
    sender.end(None)
    sender.join(30)
    assert sender.is_done
    assert store.bundle == bundle
    assert store.tries == 3
    assert events == []


def test_bundle_of_a_run_that_has_ended_is_not_waited_for(tmp_path: Path) -> None:
    store = FakeStore()
    ref = UrlRef(url="file:///there")
    sender = Courier(store, ref, tmp_path, 0, "1-a", lambda event, data: None, tmp_path)
    sender.end(None)
    sender.run()
    assert sender.is_done
    assert store.tries == 0


def test_what_a_killed_attempt_left_of_its_bundle_is_removed(tmp_path: Path) -> None:
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "manifest.json").write_text('{"files": {}}')
    (run / ".bundle-ab12").mkdir(parents=True)
    (run / ".bundle-ab12/bundle.tar").write_bytes(b"half")
    (run / "events.jsonl").touch()
    paths = Paths(bundle=str(bundle), run=str(run), cache=str(tmp_path / "cache"))
    assert sync._bundle(JobSpec(run_id="run-a", paths=paths)) == bundle
    assert [path.name for path in run.iterdir()] == ["events.jsonl"]
