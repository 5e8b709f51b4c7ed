"""Starts of a job that its provider starts again by itself: numbers that never go back."""

import json
from pathlib import Path

import pytest

from ftl.contract import ExitRecord, JobSpec
from ftl_runtime.rendezvous import Rendezvous
from ftl_runtime.starts import counted


def start(run_dir: Path, submitted: int, place: Rendezvous | None = None, *, restarts: bool = True) -> JobSpec:
    job = JobSpec(run_id="run", attempt=submitted, restarts=restarts)
    given = run_dir / "job.json"
    started, file = counted(job, given, run_dir, place or Rendezvous())
    assert (file == given) is not restarts
    if restarts:
        assert JobSpec.read_json(file.read_bytes()) == started
    return started


def test_each_start_is_the_next_attempt_and_a_later_submission_begins_above_them(tmp_path: Path) -> None:
    assert [start(tmp_path, 1).attempt for _ in range(3)] == [1, 2, 3]
    resumed = start(tmp_path, 2)
    assert (resumed.attempt, resumed.submission) == (4, 2)
    assert start(tmp_path, 9).attempt == 9


def test_job_that_nobody_restarts_keeps_its_number_and_file(tmp_path: Path) -> None:
    assert start(tmp_path, 5, restarts=False).attempt == 5
    assert list(tmp_path.iterdir()) == []


def test_each_machine_counts_for_itself(tmp_path: Path) -> None:
    second = Rendezvous(num_nodes=2, node=1, address="10.0.0.1", port=29500)
    assert [start(tmp_path, 1, second).attempt, start(tmp_path, 1).attempt, start(tmp_path, 1).attempt] == [1, 1, 2]
    assert json.loads((tmp_path / "starts-1.json").read_text()) == {"attempt": 1}


@pytest.mark.parametrize("content", ["", "[1]", '{"attempt": "x"}'])
def test_count_that_cannot_be_read_begins_at_the_submission(tmp_path: Path, content: str) -> None:
    (tmp_path / "starts.json").write_text(content)
    assert start(tmp_path, 3).attempt == 3


def test_exit_record_belongs_to_the_submission_not_to_the_start() -> None:
    record = ExitRecord(attempt=4, submission=2, exit_code=0, cause="done")
    assert record.is_of(2) and not record.is_of(4)
    assert ExitRecord(attempt=2, exit_code=0, cause="done").is_of(2)
