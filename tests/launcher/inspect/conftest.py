"""A config whose tokenizer knows bytes and a few special tokens, so that a token is a letter."""

import json
from pathlib import Path
from typing import Any

import pytest
from letters import MakeConfig, save_tokenizer

from ftl.tokens import TokenizerView


@pytest.fixture
def view(tmp_path: Path) -> TokenizerView:
    return TokenizerView.load(save_tokenizer(tmp_path / "model"))


@pytest.fixture
def make_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeConfig:
    """Write rows.jsonl and cfg.yml, one key a line; the path of cfg.yml. A dict is a row, a text a line as it is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    save_tokenizer(tmp_path / "model")

    def make(rows: list[dict[str, Any] | str], *, dataset: dict[str, Any] | None = None, **keys: Any) -> Path:
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        (tmp_path / "rows.jsonl").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        settings = {
            "base_model": "./model",
            "reinit_weights": True,
            "learning_rate": 1e-4,
            "sequence_len": 64,
            "datasets": [{"path": "rows.jsonl", "type": "completion", **(dataset or {})}],
            **keys,
        }
        path = tmp_path / "cfg.yml"
        path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()))
        return Path(path.name)

    return make
