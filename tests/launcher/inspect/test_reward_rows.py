"""Rows of a reward model hold no label, and that is right."""

from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

from ftl.cloudfile import load_cloud
from ftl.commands.prepare import Preparation
from ftl.config.load import load_train


def test_pairs_of_whole_texts_are_accepted_though_no_token_is_trained(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"hello": 0, "</s>": 1}, unk_token="hello"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    (tmp_path / "model").mkdir()
    tokenizer.save(str(tmp_path / "model/tokenizer.json"))
    (tmp_path / "model/tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    (tmp_path / "model/config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "rows.jsonl").write_text('{"input": "hello", "chosen": "hello hello", "rejected": "hello"}\n')
    (tmp_path / "cfg.yml").write_text(
        "base_model: ./model\nreinit_weights: true\nlearning_rate: 1e-4\nreward_model: true\nnum_labels: 1\n"
        "chat_template: chatml\ndatasets:\n  - path: ./rows.jsonl\n    type: bradley_terry.chat_template\n"
    )
    prepared = Preparation(load_cloud(None)).prepare(load_train(tmp_path / "cfg.yml"))
    assert [reference.key for reference in prepared.refs] == ["base_model", "datasets.0.path"]
