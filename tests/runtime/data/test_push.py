"""The push of tokenised rows, against a recorder of what would be sent: no upload server runs here."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import yaml

from ftl.config.data import DataSection
from ftl.errors import ConfigError
from ftl.sources import open_source
from ftl.tokens import TokenizerView
from ftl_runtime.data.dataset import Splits, build_splits
from ftl_runtime.data.push import push_rows


class RecordedHub:
    """The methods of HfApi that are called, over one repository in memory."""

    def __init__(self, scratch: Path) -> None:
        self.files: dict[str, bytes] = {}
        self.created: list[dict[str, Any]] = []
        self.num_commits = 0
        self._scratch = scratch

    def create_repo(self, repo: str, **how: Any) -> None:
        self.created.append({"repo": repo, **how})

    def file_exists(self, repo: str, file: str, *, repo_type: str) -> bool:
        return file in self.files

    def hf_hub_download(self, repo: str, file: str, *, repo_type: str) -> str:
        path = self._scratch / file
        path.write_bytes(self.files[file])
        return str(path)

    def create_commit(self, repo: str, operations: list[Any], *, commit_message: str, repo_type: str) -> None:
        self.num_commits += 1
        for operation in operations:
            with operation.as_file() as file:
                self.files[operation.path_in_repo] = file.read()


@pytest.fixture
def hub(tmp_path: Path) -> RecordedHub:
    return RecordedHub(tmp_path)


@pytest.fixture
def prepare(tmp_path: Path, byte_view: TokenizerView, write_jsonl: Callable[..., Path]) -> Callable[..., Splits]:
    write_jsonl("a.jsonl", [{"text": text} for text in ("a", "bb", "ccc")])

    def call(**keys: Any) -> Splits:
        data = DataSection.model_validate({"datasets": [{"path": "a.jsonl", "type": "completion"}], **keys})
        return build_splits(
            data,
            byte_view,
            seed=0,
            open=lambda dataset: open_source(dataset, lambda path: tmp_path / path, seed=0, download_dir=None),
            cache_dir=tmp_path / "cache",
            emit=lambda event, fields: None,
        )

    return call


def rows_of(content: bytes) -> list[dict[str, list[int]]]:
    return pyarrow.parquet.read_table(io.BytesIO(content)).to_pylist()


def test_rows_are_pushed_as_tokens_to_a_private_repository(hub: RecordedHub, prepare: Callable[..., Splits]) -> None:
    name = push_rows(prepare(shuffle=False), "me/rows", hub)
    assert hub.created == [{"repo": "me/rows", "repo_type": "dataset", "private": True, "exist_ok": True}]
    first, second, third = rows_of(hub.files[f"{name}/train.parquet"])
    assert first["input_ids"] == first["labels"]
    assert (first["input_ids"][0], first["input_ids"][-1], len(first["input_ids"])) == (256, 257, 3)
    assert (second["attention_mask"], third["attention_mask"]) == ([1] * 4, [1] * 5)


def test_card_names_the_files_of_each_version(hub: RecordedHub, prepare: Callable[..., Splits]) -> None:
    first = push_rows(prepare(), "me/rows", hub)
    second = push_rows(prepare(val_set_size=1), "me/rows", hub)
    facts = yaml.safe_load(hub.files["README.md"].decode().split("---")[1])
    assert facts["configs"] == [
        {"config_name": first, "data_files": [{"split": "train", "path": f"{first}/train.parquet"}]},
        {
            "config_name": second,
            "data_files": [
                {"split": "train", "path": f"{second}/train.parquet"},
                {"split": "test", "path": f"{second}/test.parquet"},
            ],
        },
    ]


def test_same_rows_are_pushed_once(hub: RecordedHub, prepare: Callable[..., Splits]) -> None:
    assert push_rows(prepare(), "me/rows", hub) == push_rows(prepare(), "me/rows", hub)
    assert hub.num_commits == 1


def test_repository_that_cannot_be_written_is_one_sentence(hub: RecordedHub, prepare: Callable[..., Splits]) -> None:
    def refuse(repo: str, **how: Any) -> None:
        raise OSError("403 Forbidden: this token may not write")

    hub.create_repo = refuse  # type: ignore[method-assign]
    with pytest.raises(ConfigError) as caught:
        push_rows(prepare(), "me/rows", hub)
    assert str(caught.value) == (
        "push_dataset_to_hub: me/rows: 403 Forbidden: this token may not write; "
        "set HF_TOKEN to a token that may write there, or remove the key"
    )
