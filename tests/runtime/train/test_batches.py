"""Global batches and what each rank gets of them."""

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from ftl.errors import ConfigError  # noqa: E402
from ftl_runtime.context import Device  # noqa: E402
from ftl_runtime.data.sampler import BatchOrder  # noqa: E402
from ftl_runtime.train.batches import GlobalBatches, Loaders  # noqa: E402


class Lengths:
    """Rows that are their own length."""

    def __len__(self):
        return 22

    def __getitem__(self, row):
        return (row * 7) % 23 + 1

    def costs(self, rows):
        return [self[row] ** 2 for row in rows]


def drawn_by(rank, num_ranks, size):
    """The rows that a rank gets, batch by batch."""
    device = Device("cpu", has_bf16=True, rank=rank, num_ranks=num_ranks)
    order = BatchOrder(22, seed=3)
    loaders = Loaders(Lengths(), None, order, list, batch_size=size, eval_batch_size=1, device=device)
    return list(loaders.train)


def test_ranks_together_get_the_batch_that_one_rank_gets():
    alone = drawn_by(0, 1, 4)
    shares = [drawn_by(rank, 2, 2) for rank in range(2)]
    together = [sorted(first + second) for first, second in zip(*shares, strict=True)]
    assert together[:5] == [sorted(batch) for batch in alone[:5]]
    assert {len(batch) for share in shares for batch in share} == {2}


def test_one_rank_keeps_the_order():
    rows = Lengths()
    assert [length for batch in drawn_by(0, 1, 4) for length in batch] == [rows[row] for row in BatchOrder(22, seed=3)]


@pytest.mark.parametrize(("num_rows", "last"), [(10, [6, 7, 8, 9, 0, 1]), (2, [0, 1, 0, 1, 0, 1])])
def test_last_batch_of_several_ranks_is_filled_up_from_the_start(num_rows, last):
    batches = list(GlobalBatches(range(num_rows), 2, 3))
    assert len(batches) == len(GlobalBatches(range(num_rows), 2, 3))
    assert batches[-1] == last


@pytest.mark.parametrize(("num_ranks", "batches"), [(1, [[0, 1], [2, 3]]), (2, [[0, 1, 2, 3]]), (3, [])])
def test_last_batch_is_left_out_when_asked(num_ranks, batches):
    asked = GlobalBatches(range(5), 2, num_ranks, drop_last=True)
    assert (list(asked), len(asked)) == (batches, len(batches))


def test_nothing_left_to_train_on_is_refused():
    device = Device("cpu", has_bf16=True, rank=0, num_ranks=1)
    with pytest.raises(ConfigError, match="there are 22 rows, and a batch of all ranks has 23"):
        Loaders(
            Lengths(), None, BatchOrder(22, 3), list, batch_size=23, eval_batch_size=1, device=device, drop_last=True
        )


def test_last_batch_of_one_rank_is_what_is_left():
    assert list(GlobalBatches(range(5), 2, 1)) == [[0, 1], [2, 3], [4]]
