"""What a hurried user gets wrong: one sentence, the documented exit code, nothing started, nothing half-written."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from commandline import Ftl, run_ids
from project import make_project


def edited(project: Path, **changes: object) -> Path:
    path = project / "cfg.yml"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}, indent=1))
    return path


@pytest.fixture
def refused(ftl: Ftl, own_state: Path):  # type: ignore[no-untyped-def]
    """Run a command that must fail cleanly; its words on stderr."""

    def check(code: int, *arguments: str | Path, cwd: Path | None = None, **environment: str) -> str:
        done = ftl(*arguments, cwd=cwd, **environment)
        assert done.returncode == code, f"{done.returncode}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr + done.stdout
        assert not list((own_state / "runs").glob("*")), "nothing may be left of a run that did not start"
        return " ".join(done.stderr.split())

    return check


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"learning_ratte": 1e-3}, "learning_ratte: unknown key; did you mean `learning_rate`?"),
        ({"lora_r": 0, "adapter": "lora"}, "lora_r = 0: must be at least 1"),
        ({"sequence_len": "long"}, "sequence_len = 'long': must be a whole number"),
        (
            {"push_to_hub": True},
            "push_to_hub = true: needs the name of the repository; write `hub_model_id: user/name`",
        ),
        ({"warmup_steps": 3, "warmup_ratio": 0.1}, "warmup_ratio = 0.1: cannot be given together with `warmup_steps`"),
        ({"base_model": "./modell"}, "base_model: ./modell: no such file or directory: looked in "),
        ({"datasets": [{"path": "json", "data_files": "x*.jsonl", "type": "alpaca"}]}, "x*.jsonl: no such file or "),
    ],
    ids=["typo", "bound", "type", "no name", "rule", "no model", "no data"],
)
def test_wrong_config_is_refused_with_its_line(
    refused, project: Path, changes: dict[str, object], sentence: str
) -> None:  # type: ignore[no-untyped-def]
    said = refused(2, "train", edited(project, **changes))
    assert sentence in said
    assert "cfg.yml:" in said


def test_every_problem_is_told_at_once(refused, project: Path) -> None:  # type: ignore[no-untyped-def]
    said = refused(2, "train", edited(project, learning_ratte=1, lora_rr=2, seed="x"))
    assert "learning_ratte" in said
    assert "lora_rr" in said
    assert "seed = 'x'" in said


def test_missing_config_names_a_near_one(refused, project: Path) -> None:  # type: ignore[no-untyped-def]
    said = refused(2, "train", project / "cgf.yml")
    assert "cgf.yml" in said
    assert "cfg.yml" in said


def test_unreadable_row_is_named_with_its_line(refused, project: Path) -> None:  # type: ignore[no-untyped-def]
    rows = (project / "rows.jsonl").read_text().splitlines()
    rows[41] = '{"instruction": "cut of'
    (project / "rows.jsonl").write_text("\n".join(rows))
    assert "rows.jsonl:42" in refused(2, "train", project / "cfg.yml")


def test_row_with_a_list_for_a_text_is_named_with_its_line(refused, project: Path) -> None:  # type: ignore[no-untyped-def]
    rows = (project / "rows.jsonl").read_text().splitlines()
    rows[6] = '{"instruction": "a", "output": ["b"]}'
    (project / "rows.jsonl").write_text("\n".join(rows))
    assert "rows.jsonl:7" in refused(2, "train", project / "cfg.yml")


def test_base_made_by_another_config_says_which_to_run_first(refused, project: Path) -> None:  # type: ignore[no-untyped-def]
    (project / "pretrain.yml").write_text("output_dir: ./base\n")
    said = refused(2, "train", edited(project, base_model="./base"))
    assert "run `ftl train" in said
    assert "pretrain.yml` first" in said


def test_output_dir_with_foreign_files_is_refused_before_training(refused, project: Path) -> None:  # type: ignore[no-untyped-def]
    (project / "out").mkdir()
    (project / "out/thesis.tex").write_text("years of work")
    said = refused(2, "train", project / "cfg.yml")
    assert "files that ftl did not write" in said
    assert (project / "out/thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("cloud", "sentence"),
    [
        ("provider: dockker\n", "must be one of local, docker"),
        ("gpu: 1\n", "every cloud file names one"),
        ("provider: local\ntimeout: soon\n", "timeout = 'soon': must be seconds, or a number with s, m, h or d"),
        ("provider: local\ngpus: 1\n", "gpus: unknown key; did you mean `gpu`?"),
        ("provider: local\nsecrets: [hf_token]\n", "secrets"),
        ("provider: local\n  gpu: 1\n", "cloud.yml:2"),
    ],
    ids=["provider", "no provider", "timeout", "typo", "secret name", "syntax"],
)
def test_wrong_cloud_file_is_refused(refused, project: Path, cloud: str, sentence: str) -> None:  # type: ignore[no-untyped-def]
    (project / "cloud.yml").write_text(cloud)
    assert sentence in refused(2, "train", project / "cfg.yml", "--cloud", project / "cloud.yml")


def test_absent_secret_is_refused_before_anything_starts(refused, project: Path) -> None:  # type: ignore[no-untyped-def]
    (project / "cloud.yml").write_text("provider: local\nsecrets: [FTL_TEST_ABSENT]\n")
    said = refused(3, "train", project / "cfg.yml", "--cloud", project / "cloud.yml")
    assert "secret FTL_TEST_ABSENT: not set in this shell; `export FTL_TEST_ABSENT=...`" in said


def test_no_docker_engine_is_one_sentence(refused, project: Path) -> None:  # type: ignore[no-untyped-def]
    (project / "cloud.yml").write_text("provider: docker\nimage: cpu\n")
    host = f"unix://{project}/no.sock"
    said = refused(3, "train", project / "cfg.yml", "--cloud", project / "cloud.yml", DOCKER_HOST=host)
    assert "no Docker engine is running" in said


@pytest.mark.parametrize("command", ["attach", "stop", "resume", "pull", "rm", "logs"])
def test_unknown_run_is_exit_4(refused, command: str) -> None:  # type: ignore[no-untyped-def]
    assert "run 'zzz': is not known on this machine; `ftl ps` lists the runs" in refused(4, command, "zzz")


def test_bad_set_says_its_form(refused, project: Path) -> None:  # type: ignore[no-untyped-def]
    assert "must be key=value" in refused(2, "train", project / "cfg.yml", "--set", "learning_rate")


def test_dry_run_writes_nothing(ftl: Ftl, project: Path, tmp_path: Path) -> None:
    before = sorted(str(p) for p in project.rglob("*"))
    done = ftl("train", project / "cfg.yml", "--dry-run", FTL_STATE_DIR=str(tmp_path / "state"))
    assert done.returncode == 0, done.stderr
    assert "ftl_runtime" in done.stdout
    assert not (tmp_path / "state").exists()
    assert sorted(str(p) for p in project.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_full_disk_while_training_keeps_the_checkpoints_before_it(ftl: Ftl, tmp_path: Path) -> None:
    config = make_project(tmp_path / "project", num_epochs=40, save_steps=2, save_total_limit=1000)
    state = tmp_path / "small"
    state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", state], check=True)
    try:
        done = ftl("train", config, FTL_STATE_DIR=str(state))
        assert done.returncode in (74, 3), done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert "space" in done.stderr
        (run,) = (state / "runs").iterdir()
        assert done.returncode == 3 or list((run / "checkpoints").glob("checkpoint-*"))
    finally:
        subprocess.run(["umount", state], check=True)


def test_model_that_cannot_be_delivered_is_kept(ftl: Ftl, project: Path, tmp_path: Path) -> None:
    output = str(tmp_path / "blocked" / "out")
    begun = ftl("train", project / "cfg.yml", "--max-steps", "1", "--output-dir", output, "--detach")
    assert begun.returncode == 0, begun.stderr
    (tmp_path / "blocked").write_text("")  # it was free when the run began
    (run_id,) = run_ids(ftl)
    done = ftl("attach", run_id)
    assert done.returncode == 76, done.stdout + done.stderr
    assert "ftl pull" in done.stderr
    assert ftl("pull", run_id, tmp_path / "elsewhere").returncode == 0
