import os
import subprocess

import pytest

pytestmark = pytest.mark.torch


@pytest.fixture
def small_run_dir(make_attempt, tmp_path):
    """A run whose directory has 3 MiB: room for five checkpoints of half a MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    attempt = make_attempt(output__save_steps=1, output__save_total_limit=20)
    attempt.run.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", attempt.run]).returncode != 0:
        pytest.skip("this container may not mount a tmpfs")
    yield attempt
    subprocess.run(["umount", "-l", attempt.run], check=True)


def test_disk_that_fills_up_while_training_ends_with_74_and_resumes_once_there_is_space(small_run_dir):
    attempt = small_run_dir
    assert attempt.go() == 74
    record = attempt.exit_record()
    assert record["cause"] == "storage"
    assert record["message"] == f"{attempt.run}/checkpoints: the disk is full; free some space, then resume"
    left = sorted(path.name for path in (attempt.run / "checkpoints").iterdir())
    assert "checkpoint-1" in left
    assert not [name for name in left if not name.startswith("checkpoint-")]
    subprocess.run(["mount", "-o", "remount,size=50m", attempt.run], check=True)
    assert attempt.go() == 0, attempt.output
    assert attempt.events("resumed")[0]["data"]["step"] == len(left)
    assert not [event for event in attempt.events("checkpoint") if event["data"]["state"] == "quarantined"]


def test_disk_too_small_for_two_checkpoints_is_told_before_training(make_attempt, small_run_dir):
    subprocess.run(["mount", "-o", "remount,size=500k", small_run_dir.run], check=True)
    assert small_run_dir.go() == 74
    assert "two checkpoints of 0 M trained parameters" in small_run_dir.exit_record()["message"]
    assert not small_run_dir.events("step")
