"""ftl train --sweep on this machine, with a program in the runtime's place that does what the seed says."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ftl import jobs
from ftl.commands import sweep
from ftl.errors import ConfigError, RunError


@pytest.fixture
def train(project: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, list[dict[str, object]]]]:
    """train(text of the sweep file): the exit code, and the objects that were printed."""

    def run(text: str, *assignments: str, **options: bool) -> tuple[int, list[dict[str, object]]]:
        (project / "lr.yml").write_text(text)
        given = {"detach": False, "dry_run": False, "as_json": True, **options}
        code = sweep.run(
            project / "cfg.yml",
            project / "lr.yml",
            flags=[],
            assignments=list(assignments),
            cloud=project / "cloud.yml",
            **given,
        )
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def table(objects: list[dict[str, object]]) -> list[dict[str, object]]:
    return [each for each in objects if "best" in each]


def attempts() -> dict[str, int]:
    return {record.id: len(record.attempts) for record in jobs.all_records()}


def test_failed_one_is_told_and_the_others_are_trained(train, project: Path) -> None:  # type: ignore[no-untyped-def]
    code, objects = train("seed: [1, 70]\nlearning_rate: [1e-3, 2e-3]\n")
    assert code == 70
    rows = table(objects)
    assert [row["state"] for row in rows] == ["done", "done", "failed: crash", "failed: crash"]
    assert [row["settings"] for row in rows][1] == {"seed": 1, "learning_rate": 2e-3}
    assert [row.get("eval_loss") for row in rows] == [0.9, 0.8, None, None]
    assert [row["best"] for row in rows] == [False, True, False, False], "by evaluation, not by training"
    assert (rows[0]["steps"], rows[0]["train_loss"], rows[0]["tokens_per_s"]) == (7, 1.0, 1234)
    assert sorted(path.name for path in (project / "out").iterdir()) == [
        "seed=1,learning_rate=0.001",
        "seed=1,learning_rate=0.002",
    ]


def test_repeated_command_starts_only_what_is_missing(train) -> None:  # type: ignore[no-untyped-def]
    """Done: left alone. Crashed: left alone. At its time limit: gone on with. A new value: trained."""
    code, objects = train("seed: [1, 70, 75]\n")
    done, crashed, limited = [row["run"] for row in table(objects)]
    assert code == 70
    assert attempts() == {done: 1, crashed: 1, limited: 1}
    code, objects = train("seed: [75, 2, 70, 1]\n")
    assert [row["state"] for row in table(objects)] == ["done", "done", "failed: crash", "done"]
    new = table(objects)[1]["run"]
    assert attempts() == {done: 1, crashed: 1, limited: 2, new: 1}


def test_time_limit_alone_ends_with_75(train) -> None:  # type: ignore[no-untyped-def]
    assert train("seed: [75, 1]\n")[0] == 75
    assert train("seed: [75, 1]\n")[0] == 0


def test_changed_rows_make_other_runs(train, project: Path) -> None:  # type: ignore[no-untyped-def]
    (first,) = table(train("seed: [1]\n")[1])
    (project / "rows.jsonl").write_text('{"text": "hello hello"}\n')
    (second,) = table(train("seed: [1]\n")[1])
    assert first["run"] != second["run"]
    assert len(attempts()) == 2


def test_mistake_in_one_combination_is_found_before_the_first_starts(train, own_state: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError) as error:
        train("adapter: [lora]\nlora_r: [8, 0]\nseed: [1, 2]\nwarmup_steps: [-1]\n")
    below, warmup = sorted(str(problem).partition("lr.yml:")[2] for problem in error.value.problems)
    assert below == "2: lora_r = 0: must be at least 1 (combinations 3, 4)"
    assert warmup == "4: warmup_steps = -1: must be at least 0"
    assert not own_state.exists() or list(own_state.iterdir()) == []


def test_missing_file_of_one_combination_is_found(train) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError) as error:
        train("datasets.0.path: [./rows.jsonl, ./other.jsonl]\n")
    (problem,) = error.value.problems
    assert "lr.yml:1: datasets.0.path: ./other.jsonl: no such file or directory" in str(problem)
    assert str(problem).endswith("(combination 2: datasets.0.path=./other.jsonl)")


def test_key_of_the_sweep_on_the_command_line_is_refused(train) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=r"--seed: is also in the sweep: .*lr\.yml:1; leave it out here or there"):
        train("seed: [1]\n", "seed=3")


def test_runs_that_would_share_a_repository_of_the_hub_are_refused(  # type: ignore[no-untyped-def]
    train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "x")
    with pytest.raises(ConfigError, match="hub_model_id: me/m: combinations 1, 2 would all go there"):
        train("hub_model_id: [me/m]\nseed: [1, 2]\n")
    assert train("hub_model_id: [me/m]\n_: [{hub_revision: a}, {hub_revision: b}]\n", dry_run=True)[0] == 0


def test_dry_run_lists_and_writes_nothing(train, project: Path, own_state: Path) -> None:  # type: ignore[no-untyped-def]
    code, rows = train("seed: [1, 2]\n", dry_run=True)
    assert code == 0
    assert [(row["combination"], row["settings"], row["state"]) for row in rows] == [
        (1, {"seed": 1}, "new"),
        (2, {"seed": 2}, "new"),
    ]
    assert [row["output_dir"] for row in rows] == [f"{project}/out/seed=1", f"{project}/out/seed=2"]
    assert not own_state.exists() or list(own_state.iterdir()) == []
    assert not (project / "out").exists()


def press_ctrl_c_when_a_run_trains(own_state: Path) -> threading.Thread:
    def press() -> None:
        while not list(own_state.glob("runs/*/events.jsonl")):
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


def test_ctrl_c_leaves_the_run_and_the_same_command_goes_on(train, project: Path, own_state: Path) -> None:  # type: ignore[no-untyped-def]
    thread = press_ctrl_c_when_a_run_trains(own_state)
    code, objects = train("seed: [99, 1]\n")
    thread.join()
    assert code == 130
    assert objects[-1] == {"state": "detached", "not_started": 1}
    (running,) = attempts()
    (project / "release").write_text("")
    code, objects = train("seed: [99, 1]\n")
    assert code == 0
    assert [row["state"] for row in table(objects)] == ["done", "done"]
    assert attempts()[running] == 1, "the run that went on was followed, not started again"


def test_second_ftl_on_the_same_sweep_is_refused(train, project: Path) -> None:  # type: ignore[no-untyped-def]
    with (
        sweep._alone(project / "lr.yml", project / "cfg.yml"),
        pytest.raises(RunError, match="another ftl leads this sweep already"),
    ):
        train("seed: [1]\n")


def test_people_see_a_table(train, project: Path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    """A column for what differs; the learning rate is the same in both."""
    (project / "lr.yml").write_text("seed: [1, 70]\n_: [{learning_rate: 1e-3}]\n")
    sweep.run(
        project / "cfg.yml",
        project / "lr.yml",
        flags=[],
        assignments=[],
        cloud=project / "cloud.yml",
        detach=False,
        dry_run=False,
        as_json=False,
    )
    shown = capsys.readouterr()
    head, first, second = [line.split() for line in shown.out.splitlines()[-3:]]
    assert head == ["#", "seed", "loss", "eval", "loss", "steps", "tokens/s", "state", "run"]
    assert first[:7] == ["1", "1", "1.0000", "0.9000", "7", "1,234", "done"]
    assert second[:4] == ["2", "70", "failed:", "crash"]
    assert "1 failed: `ftl logs" in shown.err
