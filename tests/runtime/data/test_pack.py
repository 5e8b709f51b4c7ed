import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ftl_runtime.data.pack import Packing, one_per_row, pack


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


def test_rows_are_nearly_full() -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(5.7, 1, 20_000).astype(int), 2, 4096)
    packing = pack(lengths, 4096)
    assert lengths.sum() / (4096 * (len(packing.row_offsets_R1) - 1)) > 0.995


def test_one_per_row_keeps_the_order() -> None:
    assert rows_of(one_per_row(3)) == [[0], [1], [2]]
