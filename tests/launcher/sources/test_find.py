"""Which files or repository a section means, and the sentence where it means nothing."""

import os
import sys
from pathlib import Path

import pytest
from sections import opened, values

from ftl.config.data import DatasetSection
from ftl.errors import ConfigError
from ftl.sources import open_source


@pytest.fixture(autouse=True)
def some_files() -> None:
    Path("data").mkdir()
    os.mkfifo("pipe.jsonl")
    for name in ("a.jsonl", "b.jsonl", "data/c.jsonl", "data/d.jsonl"):
        Path(name).write_text(f'{{"n": "{name}"}}\n')


@pytest.mark.parametrize(
    ("section", "rows"),
    [
        ({"path": "json", "data_files": ["b.jsonl", "a.jsonl"]}, ["b.jsonl", "a.jsonl"]),
        ({"data_files": ["a.jsonl", "data/*.jsonl"]}, ["a.jsonl", "data/c.jsonl", "data/d.jsonl"]),
        ({"path": "data", "data_files": ["d.jsonl"]}, ["data/d.jsonl"]),
        ({"path": "data", "data_files": ["*.jsonl"]}, ["data/c.jsonl", "data/d.jsonl"]),
        ({"path": "./a.jsonl"}, ["a.jsonl"]),
    ],
)
def test_files_are_those_that_are_named(section: dict[str, object], rows: list[str]) -> None:
    assert values("n", **section) == rows


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ({"path": "a.jsonl"}, "./mine.jsonl"),
        ({"path": "json", "data_files": ["a.jsonl", "b.jsonl"]}, "./mine.jsonl and 1 more"),
        ({"path": "data"}, "data"),
    ],
)
def test_path_of_a_bundle_is_called_what_people_call_it(section: dict[str, object], told: str) -> None:
    names = {"a.jsonl": "./mine.jsonl"}
    found = open_source(
        DatasetSection.model_validate(section),
        Path,
        seed=42,
        download_dir=None,
        called=lambda name: names.get(name, name),
    )
    assert found.label == told


def test_loader_says_the_type_of_files_whose_ending_does_not() -> None:
    Path("rows.dat").write_text("n\n5\n")
    assert values("n", path="csv", data_files=["rows.dat"]) == ["5"]
    assert values("n", path="rows.dat", ds_type="csv") == ["5"]


def test_local_directory_wins_over_a_loader_of_its_name() -> None:
    Path("data").rename("json")
    assert values("n", path="json", split="train[:1]") == ["data/c.jsonl"]


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"path": "./gone"}, "path: ./gone: no such file or directory"),
        ({"path": "gone.jsonl"}, "path: gone.jsonl: no such file or directory"),
        ({"path": "my rows"}, "path: my rows: no such file or directory"),
        ({"path": "bundle:files/x"}, "path: bundle:files/x: no such file or directory"),
        ({"data_files": ["gone.jsonl", "none-*.csv"]}, "data_files: gone.jsonl: no such file\ndata_files: none-*.csv:"),
        ({"path": "csv"}, "path: csv: names a file type; name the files with data_files"),
        ({"path": "pipe.jsonl"}, "path: pipe.jsonl: is not a regular file; write the rows into a file"),
        ({"path": "json", "data_files": ["data"]}, "data_files: data: is a directory"),
    ],
)
def test_what_is_not_there_is_said(section: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        opened(**section)
    assert str(caught.value).startswith(said)


def test_file_without_a_telling_name_asks_for_its_type() -> None:
    Path("rows.xlsx").write_text("")
    with pytest.raises(ConfigError, match=r"path: rows.xlsx: must end in \.json, .*; or say what it is with ds_type"):
        opened(path="rows.xlsx")


@pytest.mark.parametrize(
    ("path", "package", "said"),
    [
        ("org/rows", "datasets", "org/rows: no such file here, and reading Hub datasets needs 'datasets'"),
        ("s3://bucket/a.jsonl", "s3fs", "s3://bucket/a.jsonl: needs 's3fs'"),
        ("gs://bucket/a.jsonl", "gcsfs", "gs://bucket/a.jsonl: needs 'gcsfs'"),
        (
            "https://127.0.0.1/a.jsonl?key=x",
            "fsspec.implementations.http",
            "https://127.0.0.1/a.jsonl: needs 'aiohttp'",
        ),
        ("a.jsonl.zst", "zstandard", "a .zst file needs 'zstandard'"),
    ],
)
def test_missing_package_names_the_extra(path: str, package: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.jsonl.zst").write_bytes(b"")
    monkeypatch.setitem(sys.modules, package, None)
    try:
        told = values("n", path=path)
    except ConfigError as e:
        told = [str(e)]
    assert told == [f"path: {said}; pip install 'ftl-launcher[data]'"]
