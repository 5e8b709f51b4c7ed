"""Text files: every row with its line, every broken one as a sentence, and reading goes on."""

import bz2
import gzip
import lzma
from pathlib import Path

import pytest
import zstandard
from sections import scanned

from ftl.errors import ConfigError, Problem
from ftl.sources import Row, lines


def write(name: str, content: str | bytes) -> str:
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def test_jsonl_rows_have_their_line_and_blank_lines_count() -> None:
    path = write("a.jsonl", '{"text": "one"}\n\n{"text": "zwei \\u00e9"}')
    assert scanned(path=path) == [Row(0, "a.jsonl:1", {"text": "one"}), Row(1, "a.jsonl:3", {"text": "zwei é"})]


def test_json_list_rows_have_the_line_where_they_begin() -> None:
    path = write("a.json", '\n[\n  {"text": "a"}, {"text": "b"},\n  {\n    "text": "c\\n"\n  }\n]\n')
    assert [(row.where, row.data["text"]) for row in scanned(path=path) if isinstance(row, Row)] == [
        ("a.json:3", "a"),
        ("a.json:3", "b"),
        ("a.json:4", "c\n"),
    ]


def test_json_file_may_hold_one_object_a_line() -> None:
    path = write("a.json", '{"n": 1}\n{"n": 2}\n')
    assert scanned(path=path) == [Row(0, "a.json:1", {"n": 1}), Row(1, "a.json:2", {"n": 2})]


@pytest.mark.parametrize(
    ("ending", "compress"),
    [
        (".gz", gzip.compress),
        (".bz2", bz2.compress),
        (".xz", lzma.compress),
        (".zst", zstandard.ZstdCompressor().compress),
    ],
)
def test_compressed_lines_are_read_through(ending: str, compress: "type") -> None:
    path = write(f"a.jsonl{ending}", compress(b'{"n": 1}\n{"n": 2}\n'))
    assert scanned(path=path) == [Row(0, f"{path}:1", {"n": 1}), Row(1, f"{path}:2", {"n": 2})]


def test_zst_file_of_several_frames_is_read_to_its_end() -> None:
    frame = zstandard.ZstdCompressor().compress
    path = write("a.jsonl.zst", frame(b'{"n": 1}\n') + frame(b'{"n": 2}\n'))
    assert [row.data for row in scanned(path=path) if isinstance(row, Row)] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_byte_order_mark_is_no_part_of_the_first_row(name: str) -> None:
    content = {"a.csv": "text\nhi\n", "a.txt": "hi\n"}.get(name, '{"text": "hi"}\n')
    (row,) = scanned(path=write(name, b"\xef\xbb\xbf" + content.encode()))
    assert isinstance(row, Row)
    assert row.data == {"text": "hi"}


def test_csv_cells_are_texts_and_quoted_lines_belong_to_their_row() -> None:
    path = write("a.csv", 'q,answer\r\n007,"two\nlines, and ""quotes"""\r\nx,\r\n')
    assert scanned(path=path) == [
        Row(0, "a.csv:2", {"q": "007", "answer": 'two\nlines, and "quotes"'}),
        Row(1, "a.csv:4", {"q": "x", "answer": ""}),
    ]


def test_tsv_has_tabs_between_its_cells() -> None:
    assert scanned(path=write("a.tsv", "a\tb\n1,5\t2\n")) == [Row(0, "a.tsv:2", {"a": "1,5", "b": "2"})]


def test_cell_may_hold_a_whole_document() -> None:
    (row,) = scanned(path=write("a.csv", f"text\n{'x' * 200_000}\n"))
    assert isinstance(row, Row)
    assert len(row.data["text"]) == 200_000


def test_text_lines_are_rows_and_blank_lines_are_not() -> None:
    path = write("a.txt", "one \n\ntwo")
    assert scanned(path=path) == [Row(0, "a.txt:1", {"text": "one "}), Row(1, "a.txt:3", {"text": "two"})]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.jsonl", '{"n": 1}\n{"n": \n{"n": 3}\n', [1, "a.jsonl:2: not JSON at column 6: Expecting value", 3]),
        ("a.jsonl", '[1, 2]\n{"n": 1}\n', ["a.jsonl:1: [1, 2] is not an object", 1]),
        ("a.jsonl", b'{"n": "\xff"}\n{"n": 2}\n', ["a.jsonl:1: byte 0xff is not UTF-8", 2]),
        ("a.jsonl", '{"n": "\\ud800"}\n{"n": 2}', ["a.jsonl:1: holds half of a \\ud... surrogate pair", 2]),
        ("a.jsonl", '{"n": ' + "[" * 100_000 + '\n{"n": 2}', ["a.jsonl:1: is nested too deeply", 2]),
        ("a.json", '[{"n": ' + "[" * 100_000, ["a.json:1: is nested too deeply"]),
        ("a.jsonl", '{"n": ' + "1" * 5000 + '}\n{"n": 2}', ["a.jsonl:1: holds a number with too many digits", 2]),
        ("a.json", '[{"n": ' + "1" * 5000 + "}]", ["a.json:1: holds a number with too many digits"]),
        ("a.json", '[\n{"n": 1},\n7, {"n": 3}]', [1, "a.json:3: 7 is not an object", 3]),
        ("a.json", '[\n{"n": 1},\n{"n": }\n]', [1, "a.json:3: not JSON at column 7"]),
        ("a.json", '[\n{"n": 1}\n{"n": 2}]', [1, "a.json:3: the list is broken here"]),
        ("a.json", '[\n{"n": 1},\n', [1, "a.json:3: the list is broken here"]),
        ("a.json", b'[\n{"n": "\xe9"}]', ["a.json:2: byte 0xe9 is not UTF-8"]),
        ("a.json", '{\n"data": [{"n": 1}]\n}', ["a.json: holds one object over several lines"]),
        ("a.csv", "n,m\n1\n2,3\n", ["a.csv:2: 1 cells: must have 2", "2"]),
        ("a.csv", 'n,m\n1,2\n"3,4\n', ["1", "a.csv:3: not CSV: unexpected end of data"]),
        ("a.csv", b"n,m\n\xff,2\n3,4\n", ["a.csv:2: byte 0xff is not UTF-8", "3"]),
        ("a.csv", "n,n\n1,2\n", ["a.csv:1: the header has the columns 'n', 'n': must name every column, each once"]),
        ("a.csv", "", ["a.csv: holds no rows"]),
        ("a.txt", b"\xff\n", ["a.txt:1: byte 0xff is not UTF-8"]),
        ("a.jsonl", "\n\n", ["a.jsonl: holds no rows"]),
        ("a.json", "", ["a.json: holds no rows"]),
        ("a.json", "[]", ["a.json: holds no rows"]),
        ("a.jsonl.gz", b"not gzip", ["a.jsonl.gz: cannot be read: "]),
        ("a.jsonl.xz", b"not xz", ["a.jsonl.xz: cannot be read: "]),
        ("a.jsonl.zst", b"not zst", ["a.jsonl.zst: cannot be read: "]),
        ("a.parquet", b"PAR1", ["a.parquet: cannot be read: "]),
        ("a.arrow", b"ARROW1??", ["a.arrow: cannot be read: "]),
    ],
)
def test_broken_row_is_a_sentence_with_its_line(name: str, content: str | bytes, found: list[object]) -> None:
    rows = scanned(path=write(name, content))
    assert len(rows) == len(found)
    for row, wanted in zip(rows, found, strict=True):
        if isinstance(row, Problem):
            assert str(row).startswith(str(wanted))
            assert "\n" not in str(row)
        else:
            assert row.data["n"] == wanted


def test_rows_before_the_damage_of_an_archive_are_read() -> None:
    whole = gzip.compress(b"".join(b'{"n": %d}\n' % n**3 for n in range(9999)))
    *rows, problem = scanned(path=write("a.jsonl.gz", whole[: len(whole) // 2]))
    assert 0 < len(rows) < 9999
    assert all(isinstance(row, Row) for row in rows)
    assert str(problem).startswith("a.jsonl.gz: cannot be read: ")


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_line_of_any_length_takes_bounded_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 64)
    path = write(name, '{"n": 1}\n{"text": "' + "x" * 64 * 3 + '"}\n{"n": 3}')
    before, problem, after = scanned(path=path)
    assert isinstance(before, Row) and isinstance(after, Row)
    assert (before.where, after.where) == (f"{name}:1", f"{name}:3")
    assert isinstance(problem, Problem)
    assert str(problem).startswith(f"{name}:2: is longer than ")


def test_list_on_one_line_may_be_long_and_its_objects_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 64)
    path = write("a.json", "[" + '{"n": 1}, ' * 20 + '{"text": "' + "x" * 64 + '"}]')
    *rows, problem = scanned(path=path)
    assert [row.data for row in rows if isinstance(row, Row)] == [{"n": 1}] * 20
    assert isinstance(problem, Problem)
    assert str(problem).startswith("a.json:1: is longer than ")


def test_csv_line_and_cell_that_are_too_long_stop_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 64)
    path = write("a.csv", "text\nfine\n" + "x" * 65 + "\nfine\n")
    row, problem = scanned(path=path)
    assert isinstance(row, Row)
    assert str(problem).startswith("a.csv:3: is longer than ")


@pytest.mark.parametrize("name", ["a.json.zst", "a.parquet.zst", "a.arrow.zst"])
def test_file_that_is_sought_in_is_refused_with_zstd(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: a .* file cannot be read compressed with zstd; unpack it"):
        scanned(path=write(name, zstandard.compress(b"[]")))
