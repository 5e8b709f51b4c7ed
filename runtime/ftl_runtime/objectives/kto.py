"""Kahneman-Tversky optimisation: answers that are good or bad, each by itself.

Shapes: B answers.
"""

import torch
from torch import Tensor

from ftl.config.objective import ObjectiveSection
from ftl_runtime.objectives.terms import Batch, Counts, Scorer, Terms, mean_of


def kto_loss(ratio_B: Tensor, kl: Tensor, is_good_B: Tensor, *, beta: float, good: float, bad: float) -> Tensor:
    """[B]: half of its weight for each answer when policy and reference are equal and the divergence kl is 0.

    `ratio_B` are log-ratios of policy and reference; `good` and `bad` weigh the answers.
    Source: arXiv 2402.01306, eq. 7.
    """
    gain_B = torch.where(is_good_B, ratio_B - kl, kl - ratio_B)
    weight_B = torch.where(is_good_B, good, bad)
    return weight_B * (1 - (beta * gain_B).sigmoid())


def divergence(sum_and_number: Tensor) -> Tensor:
    """Scalar, in nats: how far the policy has gone from its reference, of log-ratios of answers to other prompts."""
    return (sum_and_number[0] / sum_and_number[1].clamp(min=1)).clamp(min=0)


def estimate_kto(scorer: Scorer, batch: Batch) -> Tensor:
    """[2]: log-ratios of policy and reference for prompts with answers of other rows, summed, and how many."""
    stranger = batch["stranger"]
    return mean_of(scorer.measure(stranger) - scorer.reference(stranger))


def kto_terms(scorer: Scorer, batch: Batch, section: ObjectiveSection) -> Terms:
    reference_B = scorer.reference(batch)
    policy_B, is_good_B = scorer.logprobs(batch).sums, batch["is_good"]
    ratio_B, kl = policy_B - reference_B, divergence(batch["estimate"])
    weights = {"good": section.kto_desirable_weight, "bad": section.kto_undesirable_weight}
    loss_B = kto_loss(ratio_B, kl, is_good_B, beta=section.beta_or_default, **weights)
    rewards_B = section.beta_or_default * ratio_B
    metrics = {
        "rewards/chosen": mean_of(rewards_B[is_good_B]),
        "rewards/rejected": mean_of(rewards_B[~is_good_B]),
        "logps/chosen": mean_of(policy_B[is_good_B]),
        "logps/rejected": mean_of(policy_B[~is_good_B]),
        "kl": mean_of(kl[None]),
    }
    return Terms((loss_B.sum(),), metrics)


def count_kto(batch: Batch, section: ObjectiveSection) -> Counts:
    """Answers."""
    return (len(batch["labels"]),)
