"""A config written back in the dialect reads as the config it was."""

from pathlib import Path

import pytest
import yaml

from ftl.config.load import load_train
from ftl.config.written import flat

TEXTS = {
    "sft": """
base_model: org/model
learning_rate: 1e-4
datasets: [{path: rows.jsonl, type: alpaca}, {path: more.jsonl, type: {field_instruction: q, field_output: a}}]
adapter: qlora
lora_r: 16
lora_target_linear: true
val_set_size: 0.05
save_steps: 100
special_tokens: {pad_token: <pad>}
bf16: true
lr_scheduler: cosine
""",
    "preferences": """
base_model: org/model
learning_rate: 1e-4
rl: dpo
datasets: [{path: rows.jsonl, type: chat_template.default, field_messages: talk}]
chat_template: chatml
optimizer: adamw_torch
gradient_checkpointing: true
num_epochs: 2.5
wandb_project: mine
""",
    "stream": """
base_model: org/model
learning_rate: 1e-4
pretraining_dataset: [{path: org/texts, split: train}]
max_steps: 1000
sample_packing: true
hub_model_id: me/model
tokens: [<x>, <y>]
""",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_written_config_reads_as_it_was(text: str, tmp_path: Path) -> None:
    (tmp_path / "cfg.yml").write_text(text)
    config = load_train(tmp_path / "cfg.yml").config
    (tmp_path / "again.yml").write_text(yaml.safe_dump(flat(config)))
    assert load_train(tmp_path / "again.yml").config == config


def test_only_what_was_asked_for_is_written(tmp_path: Path) -> None:
    text = "base_model: org/model\nlearning_rate: 2e-5\nsave_steps: 100\ndatasets: [{path: rows.jsonl, type: alpaca}]\n"
    (tmp_path / "cfg.yml").write_text(text)
    assert flat(load_train(tmp_path / "cfg.yml").config) == {
        "base_model": "org/model",
        "learning_rate": 2e-5,
        "save_steps": 100,
        "datasets": [{"path": "rows.jsonl", "type": "alpaca"}],
    }
