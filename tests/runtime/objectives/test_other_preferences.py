"""ORPO, CPO, SimPO and KTO by hand, and at the points where they are known."""

import math

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from ftl_runtime.objectives.cpo import cpo_loss, simpo_loss  # noqa: E402
from ftl_runtime.objectives.kto import divergence, kto_loss  # noqa: E402
from ftl_runtime.objectives.orpo import log_odds_ratio, orpo_loss  # noqa: E402
from ftl_runtime.objectives.pairs import Pairs  # noqa: E402


def pairs(chosen: float, rejected: float, lengths=(2, 2)) -> Pairs:
    return Pairs(*(torch.tensor([float(value)]) for value in (chosen, rejected, *lengths, 0, 0)))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# Four tokens: the better answer's have probability 1/2 each, the worse one's 1/4 each.
FOUR_TOKENS = pairs(2 * math.log(1 / 2), 2 * math.log(1 / 4))


def test_orpo_of_four_tokens_by_hand():
    # Odds 1 and 1/3, ratio 3: -log(3 / (1 + 3)).
    assert orpo_loss(FOUR_TOKENS).item() == pytest.approx(math.log(4 / 3))


def test_orpo_of_answers_equally_likely_per_token_is_log_2():
    assert orpo_loss(pairs(-3, -6, lengths=(2, 4))).item() == pytest.approx(math.log(2))


def test_odds_of_a_certain_answer_are_finite_and_have_a_gradient():
    certain = torch.tensor([0.0], requires_grad=True)
    log_odds_ratio(certain, torch.tensor([-1.0])).sum().backward()
    assert torch.isfinite(certain.grad).all()


def test_cpo_of_four_tokens_by_hand():
    # The sums differ by 2 ln 2; beta 0.5 gives ln 2: -log(2 / 3).
    assert cpo_loss(FOUR_TOKENS, 0.5).item() == pytest.approx(math.log(3 / 2))


def test_simpo_of_four_tokens_by_hand():
    # The means differ by ln 2; beta 2 gives 2 ln 2, gamma takes ln 2 away: -log(2 / 3).
    assert simpo_loss(FOUR_TOKENS, 2.0, math.log(2)).item() == pytest.approx(math.log(3 / 2))


def test_cpo_and_simpo_are_log_2_at_their_margins():
    assert cpo_loss(pairs(-4, -4), 0.1).item() == pytest.approx(math.log(2))
    assert simpo_loss(pairs(-2, -8, lengths=(2, 4)), 0.5, 0.5).item() == pytest.approx(math.log(2))


def test_kto_of_a_good_and_a_bad_answer_by_hand():
    ratios, is_good = torch.tensor([3.0, -1.0]), torch.tensor([True, False])
    found = kto_loss(ratios, torch.tensor(1.0), is_good, beta=0.5, good=2.0, bad=3.0)
    assert found.tolist() == pytest.approx([2 * (1 - sigmoid(1)), 3 * (1 - sigmoid(1))])


def test_kto_is_half_of_the_weight_where_policy_equals_reference():
    same = kto_loss(torch.zeros(2), torch.tensor(0.0), torch.tensor([True, False]), beta=0.1, good=1.0, bad=0.5)
    assert same.tolist() == pytest.approx([0.5, 0.25])


def test_divergence_is_a_mean_and_never_below_0():
    assert divergence(torch.tensor([6.0, 4.0])).item() == 1.5
    assert divergence(torch.tensor([-6.0, 4.0])).item() == 0
