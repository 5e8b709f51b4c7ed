"""`ftl check` and the training count the same samples and tokens of the same config."""

import json
from pathlib import Path
from typing import Any

import pytest
from byte_tokenizer import save_byte_tokenizer

from ftl.config.load import load_train
from ftl.inspect.datacheck import DatasetReport, check_dataset
from ftl.inspect.datasets import listed, open_rows
from ftl.inspect.merged import Merged
from ftl.inspect.summary import summarise
from ftl.tokens import TokenizerView
from ftl_runtime.data.dataset import build_splits

TRAIN = ["a" * n for n in (1, 3, 5, 5, 8, 9, 12, 17, 18, 30, 31)]
TEST = ["a" * n for n in (3, 6, 17)]


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"min_sample_len": 5},
        {"min_sample_len": 5, "type": "alpaca"},
        {"excess_length_strategy": "truncate", "type": "alpaca"},
        {"excess_length_strategy": "split", "min_sample_len": 7, "type": "alpaca"},
        {"dataset_exact_deduplication": True, "test": True},
        {"dataset_exact_deduplication": True, "dataset_shard_num": 3, "dataset_shard_idx": 1},
        {"dataset_shard_num": 4, "sample_packing": True, "test": True},
    ],
    ids=str,
)
def test_check_counts_what_is_trained(keys: dict[str, Any], tmp_path: Path) -> None:
    save_byte_tokenizer(tmp_path / "model")
    type, has_test = keys.pop("type", "completion"), keys.pop("test", False)
    for name, texts in (("train", TRAIN), ("test", TEST)):
        rows = [{"text": text, "instruction": text, "input": "", "output": text} for text in texts]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if has_test:
        keys["test_datasets"] = [{"path": "test.jsonl", "type": type}]
    base = {"base_model": "./model", "learning_rate": 1, "sequence_len": 8 if type == "completion" else 160}
    config = {**base, "datasets": [{"path": "train.jsonl", "type": type}], **keys}
    (tmp_path / "cfg.yml").write_text(json.dumps(config))
    loaded = load_train(tmp_path / "cfg.yml")
    data, view = loaded.config.data, TokenizerView.load(tmp_path / "model")

    merged = Merged(data)
    reports = {dataset.key: DatasetReport(dataset) for dataset in reversed(listed(data))}
    for report in reports.values():
        check_dataset(report, loaded, view, limit=5, merged=merged)
    summary, problems = summarise(merged)
    named = {dataset.section.path: dataset for dataset in listed(data)}
    splits = build_splits(
        data,
        view,
        seed=1,
        open=lambda section: open_rows(named[section.path], loaded),
        cache_dir=tmp_path / "cache",
        emit=lambda *_: None,
    )

    assert problems == []
    assert splits.train is not None
    assert (summary.train.samples, summary.train.tokens) == (splits.train.num_documents, splits.train.num_tokens)
    assert (summary.eval is None) == (splits.eval is None)
    if summary.eval is not None and splits.eval is not None:
        assert (summary.eval.samples, summary.eval.tokens) == (splits.eval.num_documents, splits.eval.num_tokens)
    used = {use.key: use for use in splits.used}
    trained = summary.train.trained + (summary.eval.trained if summary.eval else 0)
    assert trained == sum(use.trained for use in splits.used)
    for key, report in reports.items():
        tally, use = report.tally, used[key]
        assert (tally.too_long, tally.too_short, tally.repeated) == (use.too_long, use.too_short, use.duplicates)
        if data.shard_num is None:  # the training counts what is cut among its own part alone
            assert (tally.truncated, tally.split) == (use.truncated, use.split)
