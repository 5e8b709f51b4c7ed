import numpy as np
import pytest

from ftl_runtime.data.sampler import BatchOrder, GivenOrder, LengthOrder, deal


def order(num_rows: int, seed: int, epoch: int) -> list[int]:
    sampler = BatchOrder(num_rows, seed)
    sampler.set_epoch(epoch)
    return list(sampler)


def test_every_row_is_drawn_once() -> None:
    assert sorted(order(100, seed=1, epoch=0)) == list(range(100))


def test_order_is_the_same_in_another_process_at_the_same_epoch() -> None:
    sampler = BatchOrder(100, 1)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        in_one_run = list(sampler)
    assert order(100, seed=1, epoch=2) == in_one_run


def test_given_order_is_the_same_every_epoch() -> None:
    sampler = GivenOrder(4)
    sampler.set_epoch(3)
    assert (list(sampler), len(sampler)) == ([0, 1, 2, 3], 4)


def test_iterating_twice_changes_nothing() -> None:
    sampler = BatchOrder(10, 1)
    assert list(sampler) == list(sampler)


@pytest.mark.parametrize(("seed", "epoch"), [(2, 0), (1, 1)], ids=["seed", "epoch"])
def test_order_changes_with(seed: int, epoch: int) -> None:
    assert order(100, seed, epoch) != order(100, seed=1, epoch=0)


@pytest.mark.torch
def test_data_loader_draws_in_this_order() -> None:
    data = pytest.importorskip("torch.utils.data")
    sampler = BatchOrder(5, 3)
    loader = data.DataLoader(list(range(5)), batch_size=2, sampler=sampler, collate_fn=list)
    assert [row for batch in loader for row in batch] == list(sampler)
    assert len(loader) == 3


LENGTHS = np.random.default_rng(5).integers(1, 100, 1003)


def test_rows_of_a_batch_have_about_one_length() -> None:
    drawn = list(LengthOrder(LENGTHS, 10, seed=1))
    assert sorted(drawn) == list(range(1003))
    spread = [LENGTHS[drawn[start : start + 10]].std() for start in range(0, 1000, 10)]
    assert np.mean(spread) < 5  # of random rows it is 28


def test_longest_batch_comes_first() -> None:
    drawn = list(LengthOrder(LENGTHS, 10, seed=1))
    assert LENGTHS[drawn[:10]].max() == LENGTHS.max()


def test_batches_by_length_come_in_random_order_of_each_epoch() -> None:
    orders = []
    for epoch in (0, 1, 1):
        by_length = LengthOrder(LENGTHS, 10, seed=1)
        by_length.set_epoch(epoch)
        orders.append(list(by_length))
    assert orders[0] != orders[1] == orders[2]
    means = [LENGTHS[orders[0][start : start + 10]].mean() for start in range(10, 1000, 10)]
    assert means != sorted(means, reverse=True)


def test_fewer_rows_than_a_batch_are_drawn_once() -> None:
    assert sorted(LengthOrder(LENGTHS[:3], 10, seed=1)) == [0, 1, 2]


def test_ranks_get_equally_many_rows_of_about_equal_cost() -> None:
    rng = np.random.default_rng(7)
    dealt, cut = [], []
    for _ in range(100):
        costs = (rng.lognormal(6, 0.8, 32) ** 2).astype(int).tolist()
        hands = deal(costs, 4)
        assert sorted(place for hand in hands for place in hand) == list(range(32))
        assert {len(hand) for hand in hands} == {8}
        least = max(sum(costs) / 4, max(costs))  # no dealing makes the slowest rank faster
        dealt.append(max(sum(costs[place] for place in hand) for hand in hands) / least)
        cut.append(max(sum(costs[start : start + 8]) for start in range(0, 32, 8)) / least)
    assert np.mean(cut) > 1.3
    assert np.mean(dealt) < 1.03


def test_one_rank_takes_the_rows_in_order() -> None:
    assert deal([3, 1, 2], 1) == [[0, 1, 2]]


def test_dealing_is_worked_out_by_hand() -> None:
    # 9 to rank 0, 7 to rank 1, 4 to rank 1 (7 < 9), then rank 1 is full
    assert deal([4, 9, 1, 7], 2) == [[1, 2], [0, 3]]
