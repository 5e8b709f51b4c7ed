"""Parquet and arrow files, and what the datasets library saves."""

from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from sections import opened, scanned, values

from ftl.errors import ConfigError, Problem
from ftl.sources import Row

TABLE = pyarrow.table({"n": list(range(2500)), "turns": [[{"role": "user", "content": "hé"}]] * 2500})


def write_parquet(path: str) -> None:
    pyarrow.parquet.write_table(TABLE, path, row_group_size=1200)


def write_ipc_file(path: str) -> None:
    with pyarrow.ipc.new_file(path, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=1200)


def write_ipc_stream(path: str) -> None:
    with pyarrow.ipc.new_stream(path, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=1200)


@pytest.mark.parametrize(
    ("name", "write"), [("a.parquet", write_parquet), ("a.arrow", write_ipc_file), ("b.arrow", write_ipc_stream)]
)
def test_rows_have_their_number_and_nested_values(name: str, write: "type") -> None:
    write(name)
    rows = scanned(path=name)
    assert [row.data["n"] for row in rows if isinstance(row, Row)] == list(range(2500))
    assert rows[1300] == Row(1300, f"{name}:1301", {"n": 1300, "turns": [{"role": "user", "content": "hé"}]})


def test_slice_of_a_parquet_file_reads_only_its_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet("a.parquet")
    read: list[int] = []
    whole = pyarrow.parquet.ParquetFile.read_row_group
    monkeypatch.setattr(
        pyarrow.parquet.ParquetFile, "read_row_group", lambda self, i, **k: read.append(i) or whole(self, i, **k)
    )
    assert values("n", path="a.parquet", split="train[-3:]") == [2497, 2498, 2499]
    assert read == [2]


def test_number_of_rows_of_a_parquet_file_is_known_without_reading_it() -> None:
    write_parquet("a.parquet")
    assert opened(path="a.parquet").num_rows() == 2500
    assert opened(path="a.parquet", split="train[:10%]", skip=50).num_rows() == 200
    assert opened(path="a.parquet", shards=3, shards_idx=0).num_rows() == 834


def test_number_of_rows_of_lines_is_not() -> None:
    Path("a.jsonl").write_text('{"n": 1}\n')
    assert opened(path="a.jsonl").num_rows() is None


def test_damaged_row_group_is_a_problem_in_the_place_of_its_rows() -> None:
    pyarrow.parquet.write_table(TABLE.select(["n"]), "a.parquet", row_group_size=1200, compression="gzip")
    offset = pyarrow.parquet.read_metadata("a.parquet").row_group(1).column(0).dictionary_page_offset
    content = bytearray(Path("a.parquet").read_bytes())
    content[offset : offset + 40] = b"\xff" * 40
    Path("a.parquet").write_bytes(content)
    rows = scanned(path="a.parquet")
    assert [isinstance(rows[i], Problem) for i in (0, 1199, 1200, 2399, 2400)] == [False, False, True, True, False]


def test_directory_of_save_to_disk_is_its_rows() -> None:
    datasets.Dataset.from_dict({"n": [1, 2, 3]}).save_to_disk("saved", num_shards=2)
    assert values("n", path="saved") == [1, 2, 3]


def test_directory_of_a_saved_dataset_dict_has_its_splits() -> None:
    parts = {"train": datasets.Dataset.from_dict({"n": [1]}), "held_out": datasets.Dataset.from_dict({"n": [2]})}
    datasets.DatasetDict(parts).save_to_disk("saved")
    assert values("n", path="saved", split="held_out") == [2]
    with pytest.raises(ConfigError, match="split: 'test': must be one of train, held_out"):
        opened(path="saved", split="test")


def test_half_of_a_saved_directory_is_one_sentence() -> None:
    datasets.Dataset.from_dict({"n": [1]}).save_to_disk("saved")
    Path("saved/state.json").write_text("{")
    with pytest.raises(ConfigError, match=r"saved: state\.json is not what `save_to_disk`"):
        opened(path="saved")
    Path("saved/state.json").write_text('{"_data_files": [{"filename": "gone.arrow"}]}')
    with pytest.raises(ConfigError, match=r"saved: state\.json names gone\.arrow, which is not there"):
        opened(path="saved")


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_row_of_broken_text_is_told_alone(name: str) -> None:
    broken = pyarrow.array([b"one", b"\xff", b"three"]).cast(pyarrow.binary()).view(pyarrow.string())
    table = pyarrow.table({"text": broken})
    if name == "a.parquet":
        pyarrow.parquet.write_table(table, name)
    else:
        with pyarrow.ipc.new_file(name, table.schema) as writer:
            writer.write_table(table)
    rows = scanned(path=name)
    assert [row.data for row in rows if isinstance(row, Row)] == [{"text": "one"}, {"text": "three"}]
    (problem,) = [row for row in rows if isinstance(row, Problem)]
    assert str(problem).startswith(f"{name}:2: cannot be read: ")
