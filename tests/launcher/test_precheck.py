"""What the config, its files and the machine asked for say together, before anything starts."""

from pathlib import Path

import pytest

from ftl import bundle, precheck
from ftl.config.train import TrainConfig
from ftl.contract import Resources


def problems(root: Path, gpus: int = 0, **sections: dict[str, object]) -> list[str]:
    nested: dict[str, object] = {
        "model": {"base": "./model", **sections.pop("model", {})},
        "data": {"datasets": [{"path": "./rows.jsonl", "type": "alpaca"}]},
        "optim": {"learning_rate": 1e-3},
        **sections,
    }
    config = TrainConfig.model_validate(nested)
    refs, missing = bundle.references(config, root / "cfg.yml")
    assert missing == []
    return [str(problem) for problem in precheck.problems(config, refs, Resources(gpus=gpus))]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / "model" / name).write_text("{}")
    (tmp_path / "rows.jsonl").write_text("{}\n")
    return tmp_path


def test_whole_model_has_no_problem(root: Path) -> None:
    assert problems(root) == []


def test_model_without_weights_is_found_unless_they_are_drawn_at_random(root: Path) -> None:
    (root / "model/model.safetensors").unlink()
    assert problems(root) == [
        "base_model: ./model: has no *.safetensors weights; to start from random weights set reinit_weights: true"
    ]
    assert problems(root, model={"reinit_weights": True}) == []


def test_directory_that_is_no_model_is_found(root: Path) -> None:
    (root / "model/config.json").unlink()
    assert problems(root) == ["base_model: ./model: must be a directory with a config.json"]


def test_model_without_tokenizer_is_found_unless_another_is_named(root: Path) -> None:
    (root / "model/tokenizer.json").unlink()
    (found,) = problems(root)
    assert found.startswith("base_model: model: has no tokenizer; ")
    (root / "other").mkdir()
    (root / "other/tokenizer.json").write_text("{}")
    assert problems(root, model={"tokenizer": "./other"}) == []


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"model": {"attention": "flash_attention_2"}}, "attn_implementation"),
        ({"precision": {"compute": "fp16"}}, "precision"),
    ],
    ids=["flash attention", "fp16"],
)
def test_setting_for_gpus_is_found_on_a_machine_without(
    root: Path, sections: dict[str, dict[str, object]], key: str
) -> None:
    (found,) = problems(root, **{name: dict(section) for name, section in sections.items()})
    assert found.startswith(f"{key}: ")
    assert problems(root, gpus=1, **sections) == []
