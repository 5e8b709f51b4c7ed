"""Which rows a section asks for, and in which order."""

from itertools import chain
from pathlib import Path

import pytest
from sections import opened, scanned, values

from ftl.errors import ConfigError, Problem


@pytest.fixture(autouse=True)
def ten_rows() -> None:
    """rows.jsonl: n from 0 to 9."""
    Path("rows.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(10)))


@pytest.mark.parametrize(
    ("section", "rows"),
    [
        ({"split": "train[:3]"}, [0, 1, 2]),
        ({"split": "train[2:4]+train[8:]"}, [2, 3, 8, 9]),
        ({"split": "train[-2:]"}, [8, 9]),
        ({"split": "train[:30%]"}, [0, 1, 2]),
        ({"skip": 7}, [7, 8, 9]),
        ({"split": "train[5:]", "skip": 3}, [8, 9]),
        ({"split": "any_name"}, list(range(10))),
    ],
)
def test_section_chooses_rows_in_their_order(section: dict[str, object], rows: list[int]) -> None:
    assert values("n", path="rows.jsonl", **section) == rows


def test_number_of_a_row_counts_the_rows_before_the_slice() -> None:
    assert [(row.number, row.where) for row in scanned(path="rows.jsonl", split="train[6:8]")] == [
        (6, "rows.jsonl:7"),
        (7, "rows.jsonl:8"),
    ]


def test_shards_are_disjoint_complete_and_differ_by_one_row_at_most() -> None:
    shards = [values("n", path="rows.jsonl", shards=3, shards_idx=i) for i in range(3)]
    assert [len(shard) for shard in shards] == [4, 3, 3]
    assert sorted(chain(*shards)) == list(range(10))
    assert all(shard == sorted(shard) for shard in shards)
    assert shards != [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_broken_row_takes_its_place_in_slices_and_shards() -> None:
    Path("rows.jsonl").write_text('{"n": 0}\n{\n{"n": 2}\n{"n": 3}\n')
    assert values("n", path="rows.jsonl", split="train[2:]") == [2, 3]
    halves = [values("n", path="rows.jsonl", shards=2, shards_idx=i) for i in range(2)]
    assert [len(half) for half in halves] == [2, 2]


def test_start_leaves_out_rows_that_were_chosen() -> None:
    source = opened(path="rows.jsonl", split="train[2:9]", skip=1)
    assert [row.data["n"] for row in source.scan(start=4) if not isinstance(row, Problem)] == [7, 8]
    assert list(source.scan(start=100)) == []


def test_empty_choice_is_a_problem() -> None:
    assert values("n", path="rows.jsonl", split="train[:1%]") == [
        "rows.jsonl: holds no rows: of the split and part that are asked for"
    ]


def test_progress_grows_to_one() -> None:
    Path("rows.jsonl").write_text('{"n": 1}\n' * 50_000)
    told: list[float] = []
    num_rows = sum(1 for _ in opened(path="rows.jsonl").scan(on_progress=told.append))
    assert num_rows == 50_000
    assert told == sorted(told)
    assert 0.4 < told[len(told) // 2] < 0.6
    assert told[-1] == 1.0


def test_identity_is_of_contents_and_choice_and_not_of_names() -> None:
    Path("other.jsonl").write_bytes(Path("rows.jsonl").read_bytes())
    assert opened(path="other.jsonl").identity() == opened(path="rows.jsonl").identity()
    changed = [
        opened(path="rows.jsonl", split="train[:9]").identity(),
        opened(path="rows.jsonl", skip=1).identity(),
        opened(path="rows.jsonl", shards=2).identity(),
        opened(path="rows.jsonl", shards=2, shards_idx=1).identity(),
        opened(path="rows.jsonl", ds_type="text").identity(),
    ]
    Path("other.jsonl").write_text('{"n": 1}\n')
    changed += [opened(path="other.jsonl").identity(), opened(path="rows.jsonl").identity()]
    assert all(one != another for i, one in enumerate(changed) for another in changed[:i])


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"shards": 2, "shards_idx": 2}, "shards_idx: 2: must be below shards = 2"),
        ({"split": "train+test"}, "split: 'train+test': rows.jsonl is one split"),
        ({"split": "train[a:b]"}, "split: 'train[a:b]': must be like train"),
    ],
)
def test_impossible_choice_names_its_key(section: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        opened(path="rows.jsonl", **section)
    assert str(caught.value).startswith(said)
