"""A config whose tokenizer knows bytes and a few special tokens, so that a token is a letter."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from ftl.tokens import TokenizerView

SPECIAL = ["<s>", "</s>", "<pad>"]
MakeConfig = Callable[..., Path]


def save_tokenizer(directory: Path) -> Path:
    """Each byte is a token with the byte as its id's character; <s> before a text, </s> after it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: id for id, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 256)])
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    (directory / "tokenizer_config.json").write_text(json.dumps(tokens))
    (directory / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 259}))
    return directory


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
