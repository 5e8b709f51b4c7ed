import pytest

from ftl_runtime.data.sampler import BatchOrder


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
