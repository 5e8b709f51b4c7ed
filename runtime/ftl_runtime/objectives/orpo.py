"""Odds ratio preference optimisation: fine-tuning on the better answers, and a push away from the worse ones.

Shapes: B pairs.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ftl.config.objective import ObjectiveSection
from ftl_runtime.objectives.pairs import Pairs, logprob_metrics, pairs_of, reward_metrics
from ftl_runtime.objectives.terms import IGNORED, Batch, Counts, Logprobs, Scorer, Terms, mean_of

_LEAST = 1e-6  # a mean log-probability nearer to 0 has odds that fp32 cannot hold


def log_odds_ratio(chosen_B: Tensor, rejected_B: Tensor) -> Tensor:
    """log of the odds of the better answer over those of the worse one, of mean log-probabilities per token."""
    return _log_odds(chosen_B) - _log_odds(rejected_B)


def orpo_loss(pairs: Pairs) -> Tensor:
    """[B]: log 2 when both answers are equally likely per token. Source: arXiv 2403.07691, eq. 7."""
    per_token = pairs.per_token
    return -logsigmoid(log_odds_ratio(per_token.chosen_B, per_token.rejected_B))


def orpo_terms(scorer: Scorer, batch: Batch, section: ObjectiveSection) -> Terms:
    """orpo_alpha times the loss over pairs, and the cross-entropy of prompts with better answers over their tokens."""
    num_pairs = len(batch["labels"]) // 2
    whole = scorer.logprobs({**batch, "labels": _with_prompts(batch), "first_label": 1})
    is_answer_BK = batch["labels"][:, 1:] != IGNORED
    pairs = pairs_of(Logprobs(whole.values_BK * is_answer_BK, is_answer_BK))
    weight = section.beta_or_default if section.orpo_alpha is None else section.orpo_alpha
    loss_B = orpo_loss(pairs)
    chosen_nll = -whole.values_BK[:num_pairs].sum()
    means = pairs.per_token
    metrics = {
        **reward_metrics(weight * means.chosen_B, weight * means.rejected_B),
        **logprob_metrics(means.chosen_B, means.rejected_B),
        "log_odds_ratio": mean_of(-loss_B),
        "log_odds_chosen": mean_of(log_odds_ratio(means.chosen_B, means.rejected_B)),
    }
    return Terms((weight * loss_B.sum(), chosen_nll), metrics)


def count_orpo(batch: Batch, section: ObjectiveSection) -> Counts:
    """Pairs, and tokens of prompts with better answers that have one before them."""
    num_pairs = len(batch["labels"]) // 2
    return num_pairs, int(batch["lengths"][:num_pairs].sum()) - num_pairs


def _with_prompts(batch: Batch) -> Tensor:
    """The labels, and in the rows of better answers the prompt's tokens, too."""
    num_pairs, width = len(batch["labels"]) // 2, batch["labels"].shape[1]
    position_T = torch.arange(width, device=batch["labels"].device)
    is_text_BT = (position_T > 0) & (position_T < batch["lengths"][:num_pairs, None])
    chosen_BT = batch["input_ids"][:num_pairs].masked_fill(~is_text_BT, IGNORED)
    return torch.cat([chosen_BT, batch["labels"][num_pairs:]])


def _log_odds(logprob_B: Tensor) -> Tensor:
    logprob_B = logprob_B.clamp(max=-_LEAST)
    return logprob_B - torch.log(-torch.expm1(logprob_B))
