"""Each loss by hand, and at the points where it is known."""

import math

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from ftl_runtime.objectives.dpo import LOSSES, DpoOptions, dpo_loss, wpo_weights  # noqa: E402
from ftl_runtime.objectives.pairs import Pairs, pairs_of  # noqa: E402
from ftl_runtime.objectives.terms import Logprobs  # noqa: E402


def pairs(chosen, rejected, ref_chosen, ref_rejected, lengths=(1, 1)) -> Pairs:
    values = (chosen, rejected, *lengths, ref_chosen, ref_rejected)
    return Pairs(*(torch.tensor([float(value)]) for value in values))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


# Four tokens, two of each answer: ln p = -1, -1 | -2, -2; by the reference -1.5, -1.5 | -1, -1.
# So the answers' log-ratios are 1 and -2, their difference 3, per token 1.5.
FOUR_TOKENS = pairs(-2, -4, -3, -2, lengths=(2, 2))
BETA = 0.5


@pytest.mark.parametrize(
    ("name", "smoothing", "expected"),
    [
        ("sigmoid", None, -math.log(sigmoid(1.5))),
        ("sigmoid", 0.1, -0.9 * math.log(sigmoid(1.5)) - 0.1 * math.log(sigmoid(-1.5))),
        ("sigmoid_norm", None, -math.log(sigmoid(0.75))),
        ("hinge", None, 0.0),
        ("ipo", None, (1.5 - 1) ** 2),
        ("robust", 0.1, (-0.9 * math.log(sigmoid(1.5)) + 0.1 * math.log(sigmoid(-1.5))) / 0.8),
        (
            "exo_pair",
            0.1,
            sigmoid(1.5) * (math.log(sigmoid(1.5)) - math.log(0.9))
            + sigmoid(-1.5) * (math.log(sigmoid(-1.5)) - math.log(0.1)),
        ),
        ("nca_pair", None, -math.log(sigmoid(0.5)) - 0.5 * math.log(sigmoid(-0.5)) - 0.5 * math.log(sigmoid(1))),
        ("bco_pair", None, -math.log(sigmoid(0.5)) - math.log(sigmoid(1))),
        ("sppo_hard", None, (1 - 1) ** 2 + (-2 + 1) ** 2),
        ("apo_zero", None, 1 - sigmoid(0.5) + sigmoid(-1)),
        ("apo_down", None, sigmoid(0.5) + 1 - sigmoid(1.5)),
        ("aot", None, -math.log(sigmoid(1.5))),
        ("aot_unpaired", None, -math.log(sigmoid(1.5))),
        ("discopop", None, -math.log(sigmoid(1.5)) * (1 - sigmoid(30)) + math.exp(-1.5) * sigmoid(30)),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_loss_of_four_tokens_by_hand(name, smoothing, expected):
    assert LOSSES[name](FOUR_TOKENS, DpoOptions(BETA, smoothing)).item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sigmoid", math.log(2)),
        ("sigmoid_norm", math.log(2)),
        ("hinge", 1.0),
        ("ipo", 1 / (4 * BETA**2)),
        ("robust", math.log(2)),
        ("nca_pair", 2 * math.log(2)),
        ("bco_pair", 2 * math.log(2)),
        ("sppo_hard", 1 / (2 * BETA**2)),
        ("apo_zero", 1.0),
        ("apo_down", 1.0),
        ("aot", math.log(2)),
        ("aot_unpaired", math.log(2)),
        ("discopop", 0.5 * math.log(2) + 0.5),
        ("exo_pair", 0.5 * (math.log(0.5) - math.log(0.999)) + 0.5 * (math.log(0.5) - math.log(0.001))),
    ],
)
def test_loss_where_policy_equals_reference(name, expected):
    same = pairs(-7, -3, -7, -3, lengths=(4, 2))
    assert LOSSES[name](same, DpoOptions(BETA)).item() == pytest.approx(expected, rel=1e-5)


def test_aot_compares_sorted_margins():
    # Policy margins 4, 1 and reference margins 0, 2: sorted 1, 4 and 0, 2.
    two = Pairs(*(torch.tensor(values) for values in ([4.0, 1], [0.0, 0], [1.0, 1], [1.0, 1], [0.0, 2], [0.0, 0])))
    expected = [-math.log(sigmoid(0.5)), -math.log(sigmoid(1.0))]
    assert LOSSES["aot"](two, DpoOptions(BETA)).tolist() == pytest.approx(expected)


def test_losses_add_up_and_are_weighted():
    weights = torch.tensor([0.25])
    both = dpo_loss(FOUR_TOKENS, ("sigmoid", "ipo"), DpoOptions(BETA), weights)
    assert both.item() == pytest.approx(0.25 * (-math.log(sigmoid(1.5)) + 0.25))


def test_log_probabilities_per_token_are_the_means():
    assert FOUR_TOKENS.per_token.margin.item() == pytest.approx(1.5)
    assert LOSSES["ipo"](FOUR_TOKENS.per_token, DpoOptions(BETA)).item() == pytest.approx(0.25)


def test_rows_of_a_batch_become_pairs():
    values = torch.tensor([[-1.0, -1], [-2, 0], [-3, -3], [-4, -4]])
    found = pairs_of(Logprobs(values, values != 0), torch.tensor([0.5, 1, 2, 3]))
    assert found.chosen_B.tolist() == [-2, -2]
    assert found.rejected_B.tolist() == [-6, -8]
    assert found.chosen_len_B.tolist() == [2, 1]
    assert found.ref_rejected_B.tolist() == [2, 3]


def test_wpo_weight_is_the_mean_aligned_probability_of_both_answers():
    # One pair of one-token answers: ln p = -1 and -2, ln sum p^2 = -0.5 for both. exp(-0.5) * exp(-1.5).
    values = torch.tensor([[-1.0], [-2.0]], requires_grad=True)
    squares = torch.full((2, 1), -0.5)
    weights = wpo_weights(Logprobs(values, torch.ones(2, 1, dtype=torch.bool), squares))
    assert weights.tolist() == pytest.approx([math.exp(-2)])
    assert not weights.requires_grad
