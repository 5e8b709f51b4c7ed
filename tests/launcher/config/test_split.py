"""The grammar of `split`."""

import pytest

from ftl.config.split import Part, parse_split
from ftl.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("train", (Part("train"),)),
        ("train[:1%]", (Part("train", None, 1, True),)),
        ("train[ 10 : 2_0 ]", (Part("train", 10, 20),)),
        ("train[-100:]", (Part("train", -100, None),)),
        ("train[:]", (Part("train"),)),
        ("train[:50%] + test[:10]", (Part("train", None, 50, True), Part("test", None, 10))),
        ("train.part-1", (Part("train.part-1"),)),
    ],
)
def test_split_is_its_parts(text: str, parts: tuple[Part, ...]) -> None:
    assert parse_split(text) == parts


@pytest.mark.parametrize(
    ("part", "num_rows", "bounds"),
    [
        (Part("t"), 7, (0, 7)),
        (Part("t", None, 1, True), 250, (0, 2)),  # 2.5 rows: closest, ties to even, as datasets rounds
        (Part("t", 33, 66, True), 10, (3, 7)),
        (Part("t", -10, None, True), 95, (85, 95)),  # 9.5 is closest to 10
        (Part("t", -3, None), 10, (7, 10)),
        (Part("t", None, -3), 10, (0, 7)),
        (Part("t", 5, 500), 10, (5, 10)),
        (Part("t", -500, 500), 10, (0, 10)),
    ],
)
def test_bounds_of_a_slice_are_rows(part: Part, num_rows: int, bounds: tuple[int, int]) -> None:
    assert part.bounds(num_rows) == bounds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must be like train"),
        ("train[1:2", "must be like train"),
        ("train[1:2:3]", "must be like train"),
        ("train[5]", "must be like train"),
        ("train+", "must be like train"),
        ("train[1%:20]", "must be rows, or both percent"),
        ("train[:101%]", "from -100 to 100"),
        (f"train[:{'9' * 5000}]", "must be like train"),
    ],
)
def test_wrong_split_is_one_sentence(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_split(text)
