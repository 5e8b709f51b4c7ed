"""ftl gc beside a launcher in another shell: what the launcher is about to use stays, or is put there again."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftl import garbage, jobs
from ftl.commands import gc, train

Launch = Callable[[], int]


@pytest.fixture
def launch(project: Path) -> Launch:
    """`ftl train` with one config, followed to its end; its exit code."""
    options: dict[str, Any] = {"flags": [], "assignments": [], "detach": False, "dry_run": False, "as_json": True}
    return lambda: train.run(project / "cfg.yml", cloud=project / "cloud.yml", **options)


@pytest.fixture
def left_over(launch: Launch, own_state: Path) -> Path:
    """The bundle of a run that was removed long ago, which the next launch takes up."""
    assert launch() == 0
    jobs.delete(jobs.find(None).id)
    (found,) = (own_state / "bundles").iterdir()
    os.utime(found, (0, 0))
    return found


def is_waited_for(lock: Path) -> bool:
    """Whether somebody waits for the lock on that file."""
    inode = f":{lock.stat().st_ino} "
    return any("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines())


@pytest.mark.parametrize("bundle", ["written", "left_over"])
def test_gc_between_a_bundle_and_the_record_that_names_it_waits_for_the_record(
    bundle: str, launch: Launch, own_state: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if bundle == "left_over":
        request.getfixturevalue("left_over")
    save = jobs.save
    other = threading.Thread(target=gc.run, kwargs={"cloud": None, "as_json": True})

    def save_late(record: jobs.RunRecord) -> None:
        if not jobs.is_known(record.id):
            other.start()
            while other.is_alive() and not is_waited_for(own_state / "bundles.lock"):
                other.join(0.01)
        save(record)

    monkeypatch.setattr(jobs, "save", save_late)
    assert launch() == 0
    other.join()
    assert Path(jobs.find(None).bundle.path).is_dir()


def test_bundle_that_gc_removes_under_a_launcher_is_put_there_again(
    left_over: Path, launch: Launch, own_state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The launcher has found it, but comes too late with its record."""
    read, has_read, has_launched = jobs.bundles_needed, threading.Event(), threading.Event()

    def read_early() -> set[str]:
        found = read()
        has_read.set()
        while not has_launched.wait(0.01) and not is_waited_for(own_state / "bundles.lock"):
            pass
        return found

    monkeypatch.setattr(jobs, "bundles_needed", read_early)
    other = threading.Thread(target=garbage.collect_garbage)
    other.start()
    assert has_read.wait(60)
    code = launch()
    has_launched.set()
    other.join()
    assert code == 0
    assert (left_over / "manifest.json").exists()
