import json
from pathlib import Path

import pytest
import yaml

from ftl.commands.import_ import run
from ftl.errors import ConfigError, ExitCode

COMMAND = "WANDB_API_KEY=x torchrun --nproc_per_node=2 train.py --model_name_or_path m --lora_rr 3 --bf16"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_config_and_cloud_file_are_written_beside_each_other(tmp_path: Path) -> None:
    assert run("qlora", COMMAND, output=None, force=False, as_json=False) == ExitCode.DONE
    assert yaml.safe_load((tmp_path / "qlora.yml").read_text())["base_model"] == "m"
    assert yaml.safe_load((tmp_path / "qlora-cloud.yml").read_text()) == {
        "provider": "docker",
        "gpu": 2,
        "secrets": ["WANDB_API_KEY"],
    }


@pytest.mark.parametrize(
    ("output", "files"),
    [
        ("sub", ["sub/qlora-cloud.yml", "sub/qlora.yml"]),
        ("sub/mine.yaml", ["sub/mine-cloud.yml", "sub/mine.yaml"]),
    ],
)
def test_output_is_a_folder_or_the_name_of_the_config(output: str, files: list[str], tmp_path: Path) -> None:
    run("qlora", COMMAND, output=Path(output), force=False, as_json=False)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("sub/*")) == files


def test_nothing_is_overwritten_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "qlora-cloud.yml").write_text("mine")
    with pytest.raises(ConfigError, match=r"qlora-cloud\.yml: exists already; to overwrite it add --force"):
        run("qlora", COMMAND, output=None, force=False, as_json=False)
    assert [path.name for path in tmp_path.iterdir()] == ["qlora-cloud.yml"]
    run("qlora", COMMAND, output=None, force=True, as_json=False)
    assert (tmp_path / "qlora-cloud.yml").read_text() != "mine"


def test_command_is_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("#!/bin/bash\n" + COMMAND.replace(" --", " \\\n  --"))
    run("qlora", "run.sh", output=None, force=False, as_json=False)
    assert yaml.safe_load((tmp_path / "qlora.yml").read_text())["base_model"] == "m"


def test_report_says_what_became_of_each_flag(capsys: pytest.CaptureFixture[str]) -> None:
    run("qlora", COMMAND, output=None, force=False, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == ["qlora.yml", "qlora-cloud.yml"]
    by_flag = {line["given"]: (line["became"], line["why"]) for line in told["lines"]}
    assert by_flag["--model_name_or_path m"] == ("base_model: m", "")
    assert by_flag["--lora_rr 3"] == ("", "not known to this import; did you mean `--lora_r`?")
    assert by_flag["neftune_noise_alpha = 5, its default"] == ("neftune_noise_alpha: 5", "")


def test_table_ends_with_the_command_that_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.dstack.yaml").write_text(
        "type: task\ncommands: [accelerate launch -m axolotl.cli.train my.yml --lora_r 8]\nresources: {gpu: 2}\n"
    )
    run("dstack", "train.dstack.yaml", output=None, force=False, as_json=False)
    assert capsys.readouterr().out.splitlines()[-1] == "next: ftl train my.yml --lora_r 8 --cloud dstack-cloud.yml"


def test_contradictions_of_the_input_are_told_once_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"optimizer = 'nadamw': must be"):
        run("qlora", f"{COMMAND} --optim nadamw", output=None, force=False, as_json=False)
    assert (tmp_path / "qlora.yml").exists()


@pytest.mark.parametrize("program", ["qlora", "llm-finetuning", "dstack"])
def test_file_that_is_not_utf_8_is_one_sentence(program: str, tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_bytes("python train.py --x \xe9".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"^run\.sh.*not UTF-8"):
        run(program, "run.sh", output=None, force=False, as_json=False)
