"""A run whose disk fills up or may not be written any more, or whose clock jumps: nothing is lost, and it is said."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from campaign import Campaign, World
from faults import Plan
from history import History, losses_of
from ledger import Ledger
from stage import Stage

YEAR_S = 365 * 86400.0
SLOW = Plan(hits="", step_s=0.15)
"""Strikes nobody, and leaves time for something to happen between two steps."""


@pytest.fixture(scope="module")
def campaign(world: World) -> Campaign:
    return Campaign(world, "full", seed=0, ledger=Ledger())


@pytest.fixture
def stage(campaign: Campaign, request: pytest.FixtureRequest) -> Iterator[Stage]:
    """A run without stores."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    stage = campaign.stage(request.node.name)
    stage.stores = ()
    yield stage
    places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for place in reversed([place for place in places if place.startswith(str(stage.root))]):
        subprocess.run(["umount", "-l", place], check=True)


def wait_for(stage: Stage, name: str, **data: object) -> None:
    until = time.monotonic() + 60
    while not any(data.items() <= event["data"].items() for event in stage.events(name)):
        assert time.monotonic() < until, stage.log()
        time.sleep(0.01)


def verdict(stage: Stage) -> dict[str, Any]:  # Any: JSON
    told: dict[str, Any] = json.loads((stage.run / "exit.json").read_text())
    return told


def mounted(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def test_checkpoints_that_may_not_be_written_any_more_end_the_run_which_goes_on_later(
    stage: Stage, campaign: Campaign
) -> None:
    pid = stage.start(SLOW)
    wait_for(stage, "checkpoint", step=3, state="verified")
    place = stage.run / "checkpoints"
    mounted("--bind", place, place)
    mounted("-o", "remount,bind,ro", place)
    assert stage.finish(pid) == 74
    subprocess.run(["umount", "-l", place], check=True)
    told = verdict(stage)
    assert told["cause"] == "storage"
    assert str(place) in told["message"] and told["message"].endswith("cannot be written: Read-only file system")
    newest = max(stage.whole()["here"])
    assert stage.go() == 0, stage.log()
    assert [event["data"]["step"] for event in stage.events("resumed")] == [newest]
    assert losses_of(stage) == campaign.expected and stage.weights() == campaign.weights


def test_disk_that_fills_up_ends_the_run_with_a_sentence_and_it_goes_on_once_there_is_room(
    stage: Stage, campaign: Campaign
) -> None:
    mounted("-t", "tmpfs", "-o", "size=20m", "tmpfs", stage.run)
    pid = stage.start(SLOW)
    wait_for(stage, "checkpoint", step=3, state="verified")
    space = os.statvfs(stage.run)
    (stage.run / "filler").write_bytes(bytes(space.f_bavail * space.f_frsize - 100_000))  # room for events
    assert stage.finish(pid) == 74
    told = verdict(stage)
    assert told["cause"] == "storage"
    assert told["message"] == f"{stage.run}/checkpoints: the disk is full; free some space, then resume"
    kept = stage.whole()["here"]
    assert 3 in kept
    assert {path.name for path in (stage.run / "checkpoints").iterdir()} == {f"checkpoint-{step}" for step in kept}
    (stage.run / "filler").unlink()
    assert stage.go() == 0, stage.log()
    assert [event["data"]["step"] for event in stage.events("resumed")] == [max(kept)]
    assert losses_of(stage) == campaign.expected and stage.weights() == campaign.weights


def test_disk_too_small_for_two_checkpoints_is_told_before_training(stage: Stage) -> None:
    mounted("-t", "tmpfs", "-o", "size=500k", "tmpfs", stage.run)
    assert stage.go() == 74
    assert "two checkpoints of 0 M trained parameters" in verdict(stage)["message"]
    assert not stage.events("step")


def test_run_directory_that_may_not_be_written_is_a_sentence(stage: Stage) -> None:
    mounted("-t", "tmpfs", "tmpfs", stage.run)
    assert stage.go(Plan(hits="", moment="step", victim="supervisor", signal=signal.SIGTERM)) == 75
    kept = stage.whole()["here"]
    job = stage.run / "job.json"
    mounted("-o", "remount,ro", stage.run)
    said = stage.root / "said.txt"
    status = stage.nursery.wait(stage.nursery.start(job, said, stage.root / "pids-ro", {}), 60)
    mounted("-o", "remount,rw", stage.run)
    assert status == 3
    assert said.read_text() == f"{stage.run}/run.lock: Read-only file system\n"
    assert kept and stage.whole()["here"] == kept


def test_clocks_that_jump_and_equal_times_of_files_change_nothing(stage: Stage, campaign: Campaign) -> None:
    history = History(stage, campaign.expected)
    stopped = Plan(hits="", moment="step", at=8, victim="supervisor", signal=signal.SIGTERM)
    killed = Plan(hits="", moment="step", at=8, victim="machine")
    for plan, ahead_s, jump_s, at in (
        (stopped, 0.0, 8 * YEAR_S, 4),
        (killed, -20 * YEAR_S, -YEAR_S, 12),
        (None, 3 * YEAR_S, -3 * YEAR_S, 20),
    ):
        history.begin()
        before = len(stage.struck())
        status = stage.go(plan, FTL_CHAOS_CLOCK=json.dumps({"ahead_s": ahead_s, "jump_s": jump_s, "at": at}))
        history.end(status, (stage.struck()[before:] or [None])[0])
        for path in stage.run.rglob("*"):
            os.utime(path, (1e9, 1e9))
    assert status == 0 and len(stage.struck()) == 2
    history.close()
    assert stage.weights() == campaign.weights
    (result,) = stage.events("result")
    assert result["data"]["seconds"] >= 0
