"""ftl preprocess through the command line: the training after it tokenises nothing."""

import json
from pathlib import Path

import pytest
from commandline import Ftl, run_ids


def data_of(output: str) -> dict:
    """What the data event of a command's JSON lines holds."""
    events = [json.loads(line) for line in output.splitlines()]
    (data,) = [event["data"] for event in events if event.get("event") == "data"]
    return data


@pytest.fixture
def cached(ftl: Ftl, project: Path, tmp_path: Path) -> tuple[Ftl, dict]:
    """The command line with a cache of its own that `ftl preprocess` has filled, and what it said."""

    def call(*arguments: str | Path):
        return ftl(*arguments, cwd=project, FTL_CACHE_DIR=str(tmp_path / "cache"))

    done = call("preprocess", "cfg.yml", "--json")
    assert done.returncode == 0, done.stderr
    return call, data_of(done.stdout)


def test_training_after_it_tokenises_nothing(cached: tuple[Ftl, dict], tmp_path: Path) -> None:
    ftl, prepared = cached
    assert [use["was_cached"] for use in prepared["datasets"]] == [False]
    assert Path(prepared["cache"]) == tmp_path / "cache"
    trained = ftl("train", "cfg.yml", "--json", "--max-steps", "1", "--learning-rate", "1e-4")
    assert trained.returncode == 0, trained.stderr
    used = data_of(trained.stdout)
    assert [use["was_cached"] for use in used["datasets"]] == [True]
    assert used["train"] == prepared["train"]


def test_it_leaves_no_run_behind_and_says_what_it_did(cached: tuple[Ftl, dict]) -> None:
    ftl, _ = cached
    assert run_ids(ftl) == []
    done = ftl("preprocess", "cfg.yml", "--debug")
    assert "datasets.0 ./rows.jsonl: 96 rows, 96 samples" in done.stdout
    assert "found in the cache" in done.stdout
    assert "B(-100, " in done.stdout  # Below is an instruction
    assert "Count of labels: " in done.stdout
    text = ftl("preprocess", "cfg.yml", "--debug", "--debug-text-only").stdout
    assert "Below is an instruction that describes a task." in text


def test_broken_row_ends_it_with_its_place(ftl: Ftl, project: Path, tmp_path: Path) -> None:
    rows = project / "rows.jsonl"
    rows.write_text(rows.read_text() + "{\n")
    done = ftl("preprocess", "cfg.yml", cwd=project, FTL_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 2
    assert "rows.jsonl:97: " in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_formats_of_the_users_own_travel_with_the_job(ftl: Ftl, project: Path, tmp_path: Path) -> None:
    (project / "own.py").write_text(
        "def render(row, options):\n"
        "    return [{'text': 'Q ' + row['instruction'], 'train': False}, {'text': 'A', 'train': True}]\n"
    )
    flags = ("--set", "datasets.0.type=./own.py:render", "--debug", "--debug-text-only")
    done = ftl("preprocess", project / "cfg.yml", *flags, cwd=tmp_path, FTL_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert "Q Say " in done.stdout
