import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftl_runtime.data.pack import Packing, one_per_row, pack, pack_in_order


def rows_of(packing: Packing) -> list[list[int]]:
    return [row.tolist() for row in np.split(packing.order_D, packing.row_offsets_R1[1:-1])]


def naive_best_fit(lengths: list[int], capacity: int) -> int:
    """How many rows best-fit decreasing needs, written as in the textbook."""
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms[rooms.index(min(fitting))] -= length
        else:
            rooms.append(capacity - length)
    return len(rooms)


def test_documents_fill_rows_best_fit() -> None:
    # 7 and 3 fill a row, 6 and 4 another, 5 and 5 a third.
    assert sorted(sorted(row) for row in rows_of(pack(np.array([3, 4, 5, 5, 6, 7]), 10))) == [[0, 5], [1, 4], [2, 3]]


def test_document_goes_into_the_fullest_row_that_fits() -> None:
    # Rooms after 8 and 7 are 2 and 3; the 2 goes where it leaves nothing.
    assert sorted(sorted(row) for row in rows_of(pack(np.array([8, 7, 2]), 10))) == [[0, 2], [1]]


def test_documents_in_order_end_a_row_where_the_next_does_not_fit() -> None:
    assert rows_of(pack_in_order(np.array([3, 4, 5, 5, 6, 7, 3]), 10)) == [[0, 1], [2, 3], [4], [5, 6]]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=120), st.integers(40, 64))
def test_every_document_is_in_one_row_that_it_fits(lengths: list[int], capacity: int) -> None:
    rows = rows_of(pack(np.array(lengths), capacity))
    assert sorted(document for row in rows for document in row) == list(range(len(lengths)))
    assert all(0 < sum(lengths[document] for document in row) <= capacity for row in rows)
    assert len(rows) == naive_best_fit(lengths, capacity)


def test_packing_again_gives_the_same_rows() -> None:
    lengths = np.random.default_rng(0).integers(1, 512, 5000)
    first, second = pack(lengths, 512), pack(lengths.copy(), 512)
    assert np.array_equal(first.order_D, second.order_D)
    assert np.array_equal(first.row_offsets_R1, second.row_offsets_R1)


def lognormal(mean: float, sigma: float, num_lengths: int) -> np.ndarray:
    """Document lengths, that mean before they are cut to 16 ... 4096 tokens."""
    drawn = np.random.default_rng(0).lognormal(np.log(mean) - sigma**2 / 2, sigma, num_lengths)
    return np.clip(drawn.astype(int), 16, 4096)


@pytest.mark.parametrize(("uncut", "mean"), [(490, 490), (1665, 1537)], ids=["chat", "long"])
def test_rows_are_full(uncut: float, mean: float) -> None:
    lengths = lognormal(uncut, 0.8, 100_000)
    assert lengths.mean() == pytest.approx(mean, rel=0.01)
    packing = pack(lengths, 4096)
    assert lengths.sum() / (4096 * (len(packing.row_offsets_R1) - 1)) >= 0.999


def test_one_per_row_keeps_the_order() -> None:
    assert rows_of(one_per_row(3)) == [[0], [1], [2]]
