"""What rows with pictures cannot be trained with is told by its key."""

from pathlib import Path

import pytest
import yaml

from ftl.config.load import load_train
from ftl.errors import ConfigError

BASE = {
    "base_model": "m",
    "learning_rate": 1e-4,
    "processor_type": "AutoProcessor",
    "datasets": [{"path": "d.jsonl", "type": "chat_template"}],
}


def answers(path: Path, **keys: object) -> list[str]:
    path.write_text(yaml.safe_dump({**BASE, **keys}))
    try:
        return [f"note: {note}" for note in load_train(path).notes]
    except ConfigError as error:
        return [str(problem) for problem in error.problems]


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"sample_packing": True}, "sample_packing = true: cannot be used with `processor_type`"),
        ({"eval_sample_packing": True, "val_set_size": 0.1}, "eval_sample_packing = true: cannot be used with"),
        ({"batch_flattening": True, "micro_batch_size": 2}, "batch_flattening = true: cannot be used with"),
        ({"dataset_exact_deduplication": True}, "dataset_exact_deduplication = true: cannot be used with"),
        ({"excess_length_strategy": "truncate"}, "excess_length_strategy = 'truncate': cannot be used with"),
        ({"push_dataset_to_hub": "me/rows"}, "push_dataset_to_hub = 'me/rows': cannot be used with"),
        ({"eval_table_size": 2, "val_set_size": 0.1}, "eval_table_size = 2: has the model answer prompts"),
        ({"datasets": [{"path": "d.jsonl", "type": "alpaca"}]}, "datasets.0.type = 'alpaca': must be chat_template"),
        ({"fsdp_config": {"reshard_after_forward": True}}, "processor_type = 'AutoProcessor': has not been tried with"),
        ({"lm_eval_tasks": ["arc_easy"]}, "lm_eval_tasks"),
        ({"skip_prepare_dataset": True}, "note: cfg.yml:"),
        ({"image_size": 0}, "image_size = 0: must be at least 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_key_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, object], told: str) -> None:
    monkeypatch.chdir(tmp_path)
    found = answers(Path("cfg.yml"), **keys)
    assert len(found) == 1, found
    assert told in found[0]


def test_file_as_axolotl_documents_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keys = {
        "skip_prepare_dataset": False,
        "remove_unused_columns": False,
        "sample_packing": False,
        "adapter": "lora",
        "freeze_mm_modules": True,
        "image_size": [640, 480],
        "image_resize_algorithm": "bicubic",
        "lora_target_modules": r"model.language_model.layers.[\d]+.(mlp|self_attn).(up|down|gate|q|k|v|o)_proj",
    }
    assert answers(Path("cfg.yml"), **keys) == []


def test_keys_of_pictures_have_no_effect_on_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (found,) = answers(Path("cfg.yml"), processor_type=None, image_size=512)
    assert "image_size = 512: has no effect without processor_type" in found
