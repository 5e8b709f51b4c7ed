"""The container's copy of a run on the volume, and the launcher's way to read it: as files, without Modal."""

import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from ftl.backends.modal_app import entry_file, entry_module
from ftl.backends.modal_volume import SEGMENT_BYTES, content_from


class Volume:
    """A directory that answers as Modal's client does, and counts what is fetched."""

    def __init__(self, root: Path) -> None:
        self.root, self.fetched = root, 0

    def listdir(self, path: str) -> list[Any]:
        place = self.root / path
        files = [place] if place.is_file() else sorted(place.iterdir()) if place.is_dir() else []
        return [
            type("Entry", (), {"path": str(one.relative_to(self.root)), "size": one.stat().st_size}) for one in files
        ]

    def read_file(self, path: str) -> list[bytes]:
        content = (self.root / path).read_bytes()
        self.fetched += len(content)
        return [content]


@pytest.fixture
def entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = entry_module(entry_file())
    monkeypatch.setattr(module, "STATE", tmp_path / "state")
    monkeypatch.setattr(module, "SCRATCH", tmp_path / "scratch")
    monkeypatch.setattr(module, "_commit", lambda *_: None)
    return module


def make_run(entry: ModuleType, run_id: str) -> Any:
    order = {"run_id": run_id, "submission": 1, "generation": 0, "volume": "v", "environment": None, "commits": []}
    place = entry._Place(order, entry.STATE / "runs" / run_id)
    meter = entry._Meter(order, place.root / "spent.json", "train", 0.0)
    run = entry._Run(order, place, entry._Machine(0, []), "train", 0.0, meter)
    run.directory.mkdir(parents=True, exist_ok=True)
    return run


def test_growing_file_is_read_on_from_any_offset_and_only_its_end_is_fetched(entry: ModuleType, tmp_path: Path) -> None:
    run = make_run(entry, "grow")
    log = run.directory / "log.txt"
    volume = Volume(tmp_path / "state")
    directory = "runs/grow/run"
    written = b""
    for size in (10, SEGMENT_BYTES - 10, 1, 3 * SEGMENT_BYTES + 5, 0, 7):
        more = os.urandom(size)
        with log.open("ab") as file:
            file.write(more)
        run.copy()
        assert content_from(volume, directory, "log.txt", len(written)) == more  # type: ignore[arg-type]
        written += more
    assert (tmp_path / "state" / directory / "log.txt").read_bytes() == written
    for offset in (0, 1, SEGMENT_BYTES - 1, SEGMENT_BYTES, len(written) - 1, len(written)):
        assert content_from(volume, directory, "log.txt", offset) == written[offset:]  # type: ignore[arg-type]
    volume.fetched = 0
    content_from(volume, directory, "log.txt", len(written) - 3)  # type: ignore[arg-type]
    assert volume.fetched <= SEGMENT_BYTES
    assert content_from(volume, directory, "absent.txt", 0) == b""  # type: ignore[arg-type]


def test_checkpoints_go_as_wholes_and_dropped_ones_go_away(entry: ModuleType, tmp_path: Path) -> None:
    run = make_run(entry, "keep")
    here, there = run.directory / "checkpoints", tmp_path / "state/runs/keep/run/checkpoints"
    for name in ("checkpoint-5", "checkpoint-10", ".tmp-15-abc", "checkpoint-20"):
        (here / name).mkdir(parents=True)
        (here / name / "weights").write_text(name)
    for step in (5, 10):
        (here / f"checkpoint-{step}/manifest.json").write_text("{}")
    run.copy()
    assert sorted(path.name for path in there.iterdir()) == ["checkpoint-10", "checkpoint-5"], "20 is not whole yet"
    for path in (here / "checkpoint-5").iterdir():
        path.unlink()
    (here / "checkpoint-5").rmdir()
    run.copy()
    assert [path.name for path in there.iterdir()] == ["checkpoint-10"]


def test_result_comes_last_and_locks_and_unfinished_files_stay(entry: ModuleType, tmp_path: Path) -> None:
    run = make_run(entry, "last")
    stays = ("run.lock", "run-1.lock", ".stop.json", "half.tmp", ".outbox/x")
    for name in (*stays, "fit.json", "starts.json", "tracking/run-x.wandb", "output/model"):
        (run.directory / name).parent.mkdir(parents=True, exist_ok=True)
        (run.directory / name).write_text("x")
    (run.directory / "result.json").write_text("{}")
    there = tmp_path / "state/runs/last/run"
    run.copy()
    assert sorted(p.relative_to(there).as_posix() for p in there.rglob("*") if p.is_file()) == [
        "fit.json",
        "starts.json",
        "tracking/run-x.wandb",
    ]
    run.copy(whole=True)
    assert json.loads((there / "result.json").read_text()) == {}
    assert (there / "output/model").read_text() == "x"


def test_call_that_has_nothing_to_do_answers_at_once(entry: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "_own_call", lambda: "fc-mine")
    order = {"run_id": "early", "submission": 2, "generation": 1, "volume": "v", "environment": None}
    place = entry._Place(order, entry.STATE / "runs/early")
    assert place.early_answer() is None
    entry._write(place.root / "chain.json", {"submission": 1, "generation": 9, "call": "fc-of-the-first-submission"})
    assert place.early_answer() is None
    entry._write(place.root / "chain.json", {"submission": 2, "generation": 1, "call": "fc-mine"})
    assert place.early_answer() is None, "a call that is started again goes on"
    entry._write(place.root / "chain.json", {"submission": 2, "generation": 1, "call": "fc-its-twin"})
    assert place.early_answer() == {"status": "next", "call": "fc-its-twin"}
    entry._write(place.root / "chain.json", {"submission": 2, "generation": 2, "call": "fc-next"})
    assert place.early_answer() == {"status": "next", "call": "fc-next"}
    entry._write(place.root / "verdict.json", {"submission": 2, "exit_code": 0, "cause": "done"})
    assert place.early_answer()["status"] == "ended"


def test_stop_that_came_before_the_container_is_heeded(entry: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "_own_call", lambda: "fc-mine")
    order = {"run_id": "stopped", "submission": 1, "generation": 0, "volume": "v", "environment": None}
    place = entry._Place(order, entry.STATE / "runs/stopped")
    entry._write(place.root / "stop-1", {})
    told = place.early_answer()
    assert (told["status"], told["exit_code"], told["cause"]) == ("ended", 75, "signal")
