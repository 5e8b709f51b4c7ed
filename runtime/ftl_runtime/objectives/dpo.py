"""Direct preference optimisation, and the losses that differ from it in one formula.

Shapes: B pairs. Every loss gives [B], in nats; beta weighs how far the policy may go from its reference.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ftl.config.objective import DpoLoss, ObjectiveSection
from ftl_runtime.objectives.pairs import (
    Pairs,
    count_pairs,
    count_pairs_and_chosen_tokens,
    logprob_metrics,
    pairs_of,
    reward_metrics,
)
from ftl_runtime.objectives.terms import Batch, Counts, Logprobs, Scorer, Terms

_EXO_SMOOTHING = 1e-3  # of the EXO paper; 0 would be log 0
_DISCOPOP_TEMPERATURE = 0.05  # of the DiscoPOP paper


@dataclass(frozen=True)
class DpoOptions:
    beta: float = 0.1
    smoothing: float | None = None
    """Share of the pairs that may be the wrong way round."""


def sigmoid_loss(pairs: Pairs, options: DpoOptions) -> Tensor:
    """log 2 when the policy equals the reference. Source: arXiv 2305.18290, eq. 7; smoothing: its authors' cDPO."""
    return _smoothed(options.beta * pairs.margin, options.smoothing or 0.0)


def sigmoid_norm_loss(pairs: Pairs, options: DpoOptions) -> Tensor:
    """As sigmoid, of log-probabilities per token."""
    return _smoothed(options.beta * pairs.mean_margin, options.smoothing or 0.0)


def hinge_loss(pairs: Pairs, options: DpoOptions) -> Tensor:
    """1 when the policy equals the reference. Source: arXiv 2305.10425 and 2309.06657."""
    return torch.relu(1 - options.beta * pairs.margin)


def ipo_loss(pairs: Pairs, options: DpoOptions) -> Tensor:
    """1 / (4 beta^2) when the policy equals the reference. Source: arXiv 2310.12036, eq. 17, per token."""
    return (pairs.mean_margin - 1 / (2 * options.beta)) ** 2


def robust_loss(pairs: Pairs, options: DpoOptions) -> Tensor:
    """log 2 when the policy equals the reference, whatever the smoothing. Source: arXiv 2403.00409, eq. 7."""
    flips, logits_B = options.smoothing or 0.0, options.beta * pairs.margin
    return (flips * logsigmoid(-logits_B) - (1 - flips) * logsigmoid(logits_B)) / (1 - 2 * flips)


def exo_pair_loss(pairs: Pairs, options: DpoOptions) -> Tensor:
    """KL from the policy's to the smoothed preference. Source: arXiv 2402.00856, eq. 16."""
    smoothing = torch.tensor(_EXO_SMOOTHING if options.smoothing is None else options.smoothing)
    logits_B = options.beta * pairs.margin
    right_B = logits_B.sigmoid() * (logsigmoid(logits_B) - torch.log1p(-smoothing).item())
    wrong_B = (-logits_B).sigmoid() * (logsigmoid(-logits_B) - torch.log(smoothing).item())
    return right_B + wrong_B


def nca_pair_loss(pairs: Pairs, options: DpoOptions) -> Tensor:
    """2 log 2 when the policy equals the reference. Source: arXiv 2402.05369."""
    chosen_B, rejected_B = options.beta * pairs.chosen_ratio, options.beta * pairs.rejected_ratio
    return -logsigmoid(chosen_B) - 0.5 * logsigmoid(-chosen_B) - 0.5 * logsigmoid(-rejected_B)


def bco_pair_loss(pairs: Pairs, options: DpoOptions) -> Tensor:
    """2 log 2 when the policy equals the reference. Source: arXiv 2404.04656, without the shift of rewards."""
    return -logsigmoid(options.beta * pairs.chosen_ratio) - logsigmoid(-options.beta * pairs.rejected_ratio)


def sppo_hard_loss(pairs: Pairs, options: DpoOptions) -> Tensor:
    """1 / (2 beta^2) when the policy equals the reference. Source: arXiv 2405.00675, eq. 4.7, hard probabilities."""
    half = 0.5 / options.beta
    return (pairs.chosen_ratio - half) ** 2 + (pairs.rejected_ratio + half) ** 2


def apo_zero_loss(pairs: Pairs, options: DpoOptions) -> Tensor:
    """1 when the policy equals the reference. Source: arXiv 2408.06266, eq. 7."""
    return 1 - (options.beta * pairs.chosen_ratio).sigmoid() + (options.beta * pairs.rejected_ratio).sigmoid()


def apo_down_loss(pairs: Pairs, options: DpoOptions) -> Tensor:
    """1 when the policy equals the reference. Source: arXiv 2408.06266, eq. 8."""
    return 1 + (options.beta * pairs.chosen_ratio).sigmoid() - (options.beta * pairs.margin).sigmoid()


def aot_loss(pairs: Pairs, options: DpoOptions) -> Tensor:
    """Compares the sorted margins of policy and reference. Source: arXiv 2406.05882.

    Depends on which pairs share a micro-batch, not on their order.
    """
    policy_B = (pairs.chosen_B - pairs.rejected_B).sort().values
    reference_B = (pairs.ref_chosen_B - pairs.ref_rejected_B).sort().values
    return _smoothed(options.beta * (policy_B - reference_B), options.smoothing or 0.0)


def aot_unpaired_loss(pairs: Pairs, options: DpoOptions) -> Tensor:
    """As aot, of the sorted ratios of better and of worse answers."""
    margin_B = pairs.chosen_ratio.sort().values - pairs.rejected_ratio.sort().values
    return _smoothed(options.beta * margin_B, options.smoothing or 0.0)


def discopop_loss(pairs: Pairs, options: DpoOptions) -> Tensor:
    """Between logistic and exponential loss by the size of the margin. Source: arXiv 2406.08414, eq. 5."""
    logits_B = options.beta * pairs.margin
    share_B = (logits_B / _DISCOPOP_TEMPERATURE).sigmoid()
    return -logsigmoid(logits_B) * (1 - share_B) + (-logits_B).exp() * share_B


LOSSES: Mapping[DpoLoss, Callable[[Pairs, DpoOptions], Tensor]] = {
    "sigmoid": sigmoid_loss,
    "sigmoid_norm": sigmoid_norm_loss,
    "hinge": hinge_loss,
    "ipo": ipo_loss,
    "robust": robust_loss,
    "exo_pair": exo_pair_loss,
    "nca_pair": nca_pair_loss,
    "bco_pair": bco_pair_loss,
    "sppo_hard": sppo_hard_loss,
    "apo_zero": apo_zero_loss,
    "apo_down": apo_down_loss,
    "aot": aot_loss,
    "aot_unpaired": aot_unpaired_loss,
    "discopop": discopop_loss,
}


def dpo_loss(pairs: Pairs, losses: Sequence[DpoLoss], options: DpoOptions, weights_B: Tensor | None = None) -> Tensor:
    """[B]: the losses of that name, added up; each pair counts `weights_B` times."""
    loss_B = torch.stack([LOSSES[name](pairs, options) for name in losses]).sum(0)
    return loss_B if weights_B is None else loss_B * weights_B


def wpo_weights(policy: Logprobs) -> Tensor:
    """[B], no gradient: how likely the policy is to write both answers itself. Source: arXiv 2406.11827, eq. 2."""
    assert policy.log_sum_squares_BK is not None
    aligned_BK = (policy.values_BK.detach() - policy.log_sum_squares_BK) * policy.is_label_BK
    chosen_B, rejected_B = (aligned_BK.sum(1) / policy.lengths).exp().chunk(2)
    return chosen_B * rejected_B


def dpo_terms(scorer: Scorer, batch: Batch, section: ObjectiveSection) -> Terms:
    """The preference loss over pairs, and rpo_alpha times the loss of the better answers over their tokens."""
    reference_2B = None if section.dpo_reference_free else scorer.reference(batch)
    policy = scorer.logprobs(batch, with_squares=section.dpo_use_weighting)
    pairs = pairs_of(policy, reference_2B)
    options = DpoOptions(section.beta_or_default, section.dpo_label_smoothing)
    weights_B = wpo_weights(policy) if section.dpo_use_weighting else None
    compared = pairs.per_token if section.dpo_norm_loss else pairs
    losses: Sequence[DpoLoss] = ("ipo",) if section.kind == "ipo" else section.dpo_loss_type
    sums = [dpo_loss(compared, losses, options, weights_B).sum()]
    if section.rpo_alpha is not None:
        sums.append(-section.rpo_alpha * pairs.chosen_B.sum())
    rewards = options.beta * pairs.chosen_ratio, options.beta * pairs.rejected_ratio
    return Terms(tuple(sums), {**reward_metrics(*rewards), **logprob_metrics(pairs.chosen_B, pairs.rejected_B)})


def count_dpo(batch: Batch, section: ObjectiveSection) -> Counts:
    return count_pairs(batch) if section.rpo_alpha is None else count_pairs_and_chosen_tokens(batch)


def _smoothed(logits_B: Tensor, smoothing: float) -> Tensor:
    """Logistic loss, as if that share of the pairs were the wrong way round."""
    return -(1 - smoothing) * logsigmoid(logits_B) - smoothing * logsigmoid(-logits_B)
