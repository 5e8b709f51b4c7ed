"""Directories: which files are data, and which split each is."""

from pathlib import Path

import pytest
from sections import opened, scanned, values

from ftl.errors import ConfigError


def tree(*names: str) -> None:
    """Below data/: .jsonl files of one row {"n": their name}, other files as they are."""
    for name in names:
        path = Path("data", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"n": "{name}"}}\n')


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("b.jsonl", "a.jsonl"), {"train": ["a.jsonl", "b.jsonl"], "whatever": ["a.jsonl", "b.jsonl"]}),
        (
            ("train.jsonl", "test.jsonl", "my_dev_rows.jsonl", "contest.jsonl"),
            {"train": ["train.jsonl"], "test": ["test.jsonl"], "validation": ["my_dev_rows.jsonl"]},
        ),
        (("rows.jsonl", "eval.jsonl"), {"train": ["rows.jsonl"], "test": ["eval.jsonl"]}),
        (("train/x.jsonl", "validation/y.jsonl"), {"train": ["train/x.jsonl"], "validation": ["validation/y.jsonl"]}),
        (("sft-00000-of-00002.jsonl", "sft-00001-of-00002.jsonl", "dpo-00000-of-00001.jsonl"), {
            "sft": ["sft-00000-of-00002.jsonl", "sft-00001-of-00002.jsonl"], "dpo": ["dpo-00000-of-00001.jsonl"]}),
        (("a.jsonl", "b.jsonl", "notes.txt", "dataset_info.json", ".git/c.jsonl"), {"train": ["a.jsonl", "b.jsonl"]}),
    ],
    ids=["unnamed", "file-names", "rest-is-train", "directories", "shards", "other-files"],
)  # fmt: skip
def test_directory_gives_the_files_of_each_split(names: tuple[str, ...], splits: dict[str, list[str]]) -> None:
    tree(*names)
    assert {split: values("n", path="data", split=split) for split in splits} == splits


def test_rows_of_a_directory_are_numbered_through_and_placed_in_their_file() -> None:
    tree("a.jsonl", "sub/b.jsonl")
    assert [(row.number, row.where) for row in scanned(path="data")] == [
        (0, "data/a.jsonl:1"),
        (1, "data/sub/b.jsonl:1"),
    ]


def test_unknown_split_lists_those_there_are() -> None:
    tree("train.jsonl", "test.jsonl")
    with pytest.raises(ConfigError, match=r"split: 'validation': must be one of test, train"):
        opened(path="data", split="validation")


def test_ds_type_chooses_the_files() -> None:
    tree("a.jsonl", "b.jsonl", "c.txt")
    assert values("text", path="data", ds_type="text") == ['{"n": "c.txt"}']


def test_directory_without_data_is_one_sentence() -> None:
    tree("README.md")
    with pytest.raises(ConfigError, match="path: data: a directory without data files: must hold"):
        opened(path="data")


def test_broken_file_is_told_and_the_next_one_read() -> None:
    tree("a.jsonl", "b.jsonl.gz", "c.jsonl")
    first, problem, last = values("n", path="data")
    assert (first, last) == ("a.jsonl", "c.jsonl")
    assert problem.startswith("data/b.jsonl.gz: cannot be read: ")
