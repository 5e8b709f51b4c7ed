"""Group relative policy optimisation: of several completions of one prompt, those above the others become likelier.

Completions are always those of the model as it is, so what the papers clip, the ratio of the probabilities now and
then, is 1, and only its gradient counts. Sources: arXiv 2402.03300 (grpo), 2503.14476 (dapo), 2503.20783 (dr_grpo),
2601.05242 (normalize_then_sum).

Shapes: N completions of a step, in groups of G of one prompt; F rewards; B completions of a micro-batch, K tokens.
"""

import torch
from torch import Tensor

from ftl.config.grpo import GrpoSection
from ftl.config.objective import ObjectiveSection
from ftl_runtime.objectives.terms import IGNORED, Batch, Counts, Scorer, Terms, mean_of

_EPSILON = 1e-4  # added to standard deviations, as trl does


def advantages(rewards_NF: Tensor, section: GrpoSection) -> Tensor:
    """[N]: how far each completion's rewards are above those of its group. A reward that is not a number counts for
    nothing; a completion without any has 0."""
    weights_F = torch.tensor(section.reward_weights or [1.0] * rewards_NF.shape[1])
    size = section.num_generations
    if section.multi_objective_aggregation == "normalize_then_sum":
        groups_PGF = rewards_NF.view(-1, size, rewards_NF.shape[1])
        centred_PGF = groups_PGF - groups_PGF.nanmean(1, keepdim=True)
        scaled_NF = (centred_PGF / (_deviation(groups_PGF, 1) + _EPSILON)).view(rewards_NF.shape)
        sums_N = _weighted(scaled_NF, weights_F)
        found_N = (sums_N - sums_N.nanmean()) / (_deviation(sums_N, 0) + _EPSILON)
    else:
        sums_N = _weighted(rewards_NF, weights_F)
        groups_PG = sums_N.view(-1, size)
        found_PG = groups_PG - groups_PG.nanmean(1, keepdim=True)
        if section.scale_rewards == "group":
            found_PG = found_PG / (_deviation(groups_PG, 1) + _EPSILON)
        elif section.scale_rewards == "batch":
            found_PG = found_PG / (_deviation(sums_N, 0) + _EPSILON)
        found_N = found_PG.reshape(-1)
    return found_N.nan_to_num(nan=0.0)


def token_losses(
    logprobs_BK: Tensor, advantages_B: Tensor, reference_BK: Tensor | None = None, *, beta: float = 0.0
) -> tuple[Tensor, Tensor]:
    """[B, K]: the loss of each token; and its divergence from the reference without gradient, 0 if there is none."""
    ratio_BK = (logprobs_BK - logprobs_BK.detach()).exp()
    losses_BK = -ratio_BK * advantages_B[:, None]
    if reference_BK is None:
        return losses_BK, torch.zeros_like(losses_BK)
    gap_BK = reference_BK - logprobs_BK
    divergence_BK = gap_BK.exp() - gap_BK - 1
    return losses_BK + beta * divergence_BK, divergence_BK.detach()


def grpo_terms(scorer: Scorer, batch: Batch, section: ObjectiveSection) -> Terms:
    grpo = _grpo(section)
    found = scorer.logprobs(batch, temperature=grpo.temperature)
    reference_BK = scorer.reference_logprobs(batch, temperature=grpo.temperature) if grpo.beta else None
    losses_BK, divergence_BK = token_losses(found.values_BK, batch["advantages"], reference_BK, beta=grpo.beta)
    is_label_BK = found.is_label_BK
    losses_BK = losses_BK.masked_fill(~is_label_BK, 0)
    total = (losses_BK.sum(1) / found.lengths).sum() if grpo.loss_type == "grpo" else losses_BK.sum()
    names = [function.rpartition(":")[2] for function in grpo.reward_funcs]
    rewards_BF = batch["rewards"]
    metrics = {
        "reward": _mean_of_numbers(batch["reward"]),
        **{f"rewards/{name}": _mean_of_numbers(rewards_BF[:, f]) for f, name in enumerate(names)},
        "completion_tokens": mean_of(batch["completion_lengths"]),
        "truncated": mean_of(batch["is_truncated"]),
    }
    if grpo.beta:
        metrics["kl"] = mean_of(divergence_BK[is_label_BK])
    return Terms((total,), metrics)


def count_grpo(batch: Batch, section: ObjectiveSection) -> Counts:
    """Completions, their tokens, or the tokens they might have, as loss_type says."""
    grpo = _grpo(section)
    if grpo.loss_type == "dapo":
        return (int((batch["labels"][:, 1:] != IGNORED).sum()),)
    return (len(batch["labels"]) * (grpo.max_completion_length if grpo.loss_type == "dr_grpo" else 1),)


def weighted_sums(rewards_NF: Tensor, section: GrpoSection) -> Tensor:
    """[N]: the rewards of each completion, added up; nan where none is a number."""
    return _weighted(rewards_NF, torch.tensor(section.reward_weights or [1.0] * rewards_NF.shape[1]))


def _grpo(section: ObjectiveSection) -> GrpoSection:
    assert section.grpo is not None, "config.rules wants it"
    return section.grpo


def _weighted(values_NF: Tensor, weights_F: Tensor) -> Tensor:
    sums_N = (values_NF * weights_F).nansum(1)
    return sums_N.masked_fill(values_NF.isnan().all(1), torch.nan)


def _deviation(values: Tensor, dim: int) -> Tensor:
    """The standard deviation of the numbers along `dim`, which stays; 0 of a single one."""
    count = (~values.isnan()).sum(dim, keepdim=True)
    squares = (values - values.nanmean(dim, keepdim=True)).square().nansum(dim, keepdim=True)
    return (squares / (count - 1).clamp(min=1)).sqrt()


def _mean_of_numbers(values: Tensor) -> Tensor:
    return mean_of(values[~values.isnan()])
