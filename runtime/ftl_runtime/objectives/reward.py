"""Reward models: a better text is to score higher than a worse one, by Bradley and Terry.

Shapes: B pairs.
"""

from torch import Tensor
from torch.nn.functional import logsigmoid

from ftl.config.objective import ObjectiveSection
from ftl_runtime.objectives.pairs import count_pairs, reward_metrics
from ftl_runtime.objectives.terms import Batch, Counts, Scorer, Terms


def bradley_terry_loss(chosen_B: Tensor, rejected_B: Tensor, centering: float = 0.0) -> Tensor:
    """[B], of scores: log 2 when both are 0. `centering` keeps their sums near 0. Source: arXiv 2312.09244."""
    return -logsigmoid(chosen_B - rejected_B) + centering * (chosen_B + rejected_B) ** 2


def reward_terms(scorer: Scorer, batch: Batch, section: ObjectiveSection) -> Terms:
    chosen_B, rejected_B = scorer.class_logits(batch)[:, 0].float().chunk(2)
    loss_B = bradley_terry_loss(chosen_B, rejected_B, section.center_rewards_coefficient or 0.0)
    return Terms((loss_B.sum(),), reward_metrics(chosen_B, rejected_B))


def count_reward(batch: Batch, section: ObjectiveSection) -> Counts:
    return count_pairs(batch)
