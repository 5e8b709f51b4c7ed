"""Contrastive preference optimisation, and SimPO: preferences without a reference.

Shapes: B pairs. Both give log 2 where the margin of the answers is 0, SimPO with gamma 0.
"""

from torch import Tensor
from torch.nn.functional import logsigmoid

from ftl.config.objective import ObjectiveSection
from ftl_runtime.objectives.pairs import (
    Pairs,
    count_pairs_and_chosen_tokens,
    logprob_metrics,
    pairs_of,
    reward_metrics,
)
from ftl_runtime.objectives.terms import Batch, Counts, Scorer, Terms


def cpo_loss(pairs: Pairs, beta: float) -> Tensor:
    """[B], of whole answers. Source: arXiv 2401.08417, eq. 3."""
    return -logsigmoid(beta * (pairs.chosen_B - pairs.rejected_B))


def simpo_loss(pairs: Pairs, beta: float, gamma: float) -> Tensor:
    """[B], of log-probabilities per token, which are to differ by gamma / beta. Source: arXiv 2405.14734, eq. 6."""
    means = pairs.per_token
    return -logsigmoid(beta * (means.chosen_B - means.rejected_B) - gamma)


def cpo_terms(scorer: Scorer, batch: Batch, section: ObjectiveSection) -> Terms:
    """The loss over pairs, and cpo_alpha times the cross-entropy of the better answers over their tokens."""
    pairs, beta = pairs_of(scorer.logprobs(batch)), section.beta_or_default
    is_simpo = section.kind == "simpo"
    loss_B = simpo_loss(pairs, beta, section.simpo_gamma) if is_simpo else cpo_loss(pairs, beta)
    compared = pairs.per_token if is_simpo else pairs
    metrics = {
        **reward_metrics(beta * compared.chosen_B, beta * compared.rejected_B),
        **logprob_metrics(compared.chosen_B, compared.rejected_B),
    }
    return Terms((loss_B.sum(), -section.cpo_alpha * pairs.chosen_B.sum()), metrics)


def count_cpo(batch: Batch, section: ObjectiveSection) -> Counts:
    return count_pairs_and_chosen_tokens(batch)
