"""Reward and process reward losses by hand, and at the points where they are known."""

import math

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from ftl_runtime.objectives.prm import step_loss  # noqa: E402
from ftl_runtime.objectives.reward import bradley_terry_loss  # noqa: E402


def test_bradley_terry_by_hand():
    # Scores differ by ln 3: -log(3 / 4). Their sum is ln 3 too.
    found = bradley_terry_loss(torch.tensor([math.log(3)]), torch.tensor([0.0]), 0.5)
    assert found.item() == pytest.approx(math.log(4 / 3) + 0.5 * math.log(3) ** 2)


def test_bradley_terry_of_equal_scores_is_log_2():
    assert bradley_terry_loss(torch.tensor([2.0]), torch.tensor([2.0])).item() == pytest.approx(math.log(2))


def test_step_loss_of_four_tokens_by_hand():
    # Two of them end steps: right with probability 3/4, wrong with 1/5.
    logits = torch.tensor([[[9.0, 0], [0, math.log(3)], [9, 0], [0, math.log(4)]]])
    labels = torch.tensor([[-100, 1, -100, 0]])
    assert step_loss(logits, labels).item() == pytest.approx(math.log(4 / 3) + math.log(5))
