import gzip
from pathlib import Path

import pytest

from ftl.errors import ConfigError, Problem
from ftl.formats.readers import read_rows, scan_rows


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_jsonl_rows_have_their_line_and_blank_lines_count(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "one"}\n\n{"text": "zwei \\u00e9"}\n')
    assert [(row.line, row.data) for row in read_rows(path)] == [(1, {"text": "one"}), (3, {"text": "zwei é"})]


def test_json_list_rows_have_the_line_where_they_begin(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '[\n  {"text": "a"}, {"text": "b"},\n  {\n    "text": "c\\n"\n  }\n]\n')
    assert [(row.line, row.data["text"]) for row in read_rows(path)] == [(2, "a"), (2, "b"), (3, "c\n")]


def test_json_file_may_hold_one_object_a_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", '{"n": 1}\n{"n": 2}\n')
    assert [row.data["n"] for row in read_rows(path)] == [1, 2]


def test_gzip_is_read_through(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl.gz", gzip.compress(b'{"n": 1}\n{"n": 2}\n'))
    assert [row.where for row in read_rows(path)] == [f"{path}:1", f"{path}:2"]


def test_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"n": 1}\n')
    assert [row.data for row in read_rows(path)] == [{"n": 1}]


def test_directory_is_its_data_files_in_sorted_order(tmp_path: Path) -> None:
    write(tmp_path / "b.jsonl", '{"n": 2}\n')
    write(tmp_path / "a.json", '[{"n": 1}]')
    write(tmp_path / "README.md", "not data")
    assert [(row.path.name, row.data["n"]) for row in read_rows(tmp_path)] == [("a.json", 1), ("b.jsonl", 2)]


@pytest.mark.parametrize(
    ("name", "content", "where", "said"),
    [
        ("a.jsonl", '{"n": 1}\n{"n": \n{"n": 3}\n', ":2", "not JSON at column"),
        ("a.jsonl", '{"n": 1}\n[1, 2]\n', ":2", "[1, 2] is not an object"),
        ("a.jsonl", b'{"n": 1}\n{"n": "\xff"}\n', ":2", "byte 0xff is not UTF-8"),
        ("a.jsonl", '{"n": "\\ud800"}\n', ":1", "surrogate"),
        ("a.jsonl", "\n\n", "", "holds no rows"),
        ("a.json", "", "", "holds no rows"),
        ("a.json", "[]", "", "holds no rows"),
        ("a.json", '[\n{"n": 1},\n{"n": }\n]', ":3", "not JSON at column"),
        ("a.json", '[\n{"n": 1},\n7]', ":3", "7 is not an object"),
        ("a.json", '[\n{"n": 1}\n{"n": 2}]', ":3", "the list is broken here"),
        ("a.json", '[\n{"n": 1},\n', ":3", "the list is broken here"),
        ("a.json", b'[\n{"n": "\xe9"}]', ":2", "byte 0xe9 is not UTF-8"),
        ("a.jsonl.gz", b"not gzip", "", "cannot be read"),
        ("a.parquet", b"PAR1", "", "must be a .jsonl"),
    ],
)
def test_broken_file_is_named_with_its_line(
    tmp_path: Path, name: str, content: str | bytes, where: str, said: str
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(ConfigError) as caught:
        list(read_rows(path))
    assert str(caught.value).startswith(f"{path}{where}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("is_directory", [False, True], ids=["missing", "empty-directory"])
def test_path_without_data_is_one_sentence(tmp_path: Path, is_directory: bool) -> None:
    path = tmp_path if is_directory else tmp_path / "gone.jsonl"
    with pytest.raises(ConfigError, match="without data files" if is_directory else "no such file"):
        list(read_rows(path))


def test_scan_reads_on_after_a_broken_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"n": 1}\n{\n{"n": 3}\n')
    found = [row.where if isinstance(row, Problem) else row.data["n"] for row in scan_rows(path)]
    assert found == [1, f"{path}:2", 3]
