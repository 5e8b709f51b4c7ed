from pathlib import Path

import pytest

from ftl.importers.dstack import import_dstack
from ftl.importers.qlora import import_qlora
from ftl.importers.secret import masked, without_secrets

WORD = "mysecretword"


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (f"huggingface-cli login --token {WORD}", "huggingface-cli login --token ***"),
        (f"wandb login {WORD}", "wandb login ***"),
        (f"train cfg.yml --hub_token={WORD} --lora_r 8", "train cfg.yml --hub_token=*** --lora_r 8"),
        (f"train cfg.yml --wandb-api-key {WORD}", "train cfg.yml --wandb-api-key ***"),
        (f"DB_PASS={WORD} train cfg.yml", "DB_PASS=*** train cfg.yml"),
        ("train cfg.yml --pad_token <pad> --max_steps 5", "train cfg.yml --pad_token <pad> --max_steps 5"),
    ],
)
def test_secrets_of_a_command_are_masked_and_nothing_else(command: str, shown: str) -> None:
    assert masked(command.split()) == shown.split()


def test_secrets_are_left_out_with_their_flags() -> None:
    words = ["cfg.yml", "--hub_token", WORD, "--lora_r", "8", f"--hub_token={WORD}"]
    assert without_secrets(words) == ["cfg.yml", "--lora_r", "8"]


def test_task_with_secrets_shows_none(tmp_path: Path) -> None:
    task = tmp_path / "task.yaml"
    task.write_text(
        "type: task\ncommands:\n"
        f"  - huggingface-cli login --token {WORD}\n  - wandb login {WORD}\n"
        f"  - accelerate launch -m axolotl.cli.train cfg.yml --hub_token={WORD} --lora_r 8\n"
    )
    imported = import_dstack(str(task))
    assert imported.arguments == ("cfg.yml", "--lora_r", "8")
    assert WORD not in str(imported)


def test_flag_with_a_secret_shows_none() -> None:
    imported = import_qlora(f"python train.py --model_name_or_path m --hub_token {WORD} --dataset d.json")
    assert WORD not in str(imported.lines)
