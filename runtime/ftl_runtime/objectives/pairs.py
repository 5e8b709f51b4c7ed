"""What the policy and its reference say of a batch of pairs: a better and a worse answer to each of B prompts.

A batch of pairs has 2 B rows: the better answers, then the worse ones in the same order.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ftl_runtime.objectives.terms import Batch, Counts, Logprobs, mean_of


@dataclass(frozen=True)
class Pairs:
    """All [B], fp32: log-probabilities of whole answers in nats, and their tokens."""

    chosen_B: Tensor
    rejected_B: Tensor
    chosen_len_B: Tensor
    rejected_len_B: Tensor
    ref_chosen_B: Tensor
    ref_rejected_B: Tensor

    @property
    def chosen_ratio(self) -> Tensor:
        return self.chosen_B - self.ref_chosen_B

    @property
    def rejected_ratio(self) -> Tensor:
        return self.rejected_B - self.ref_rejected_B

    @property
    def margin(self) -> Tensor:
        """How much more the policy prefers the better answer than the reference does."""
        return self.chosen_ratio - self.rejected_ratio

    @property
    def mean_margin(self) -> Tensor:
        """The same for log-probabilities per token."""
        return self.per_token.margin

    @property
    def per_token(self) -> "Pairs":
        """Of answers of one token each, with the mean log-probability of the tokens they had."""
        one_B = torch.ones_like(self.chosen_len_B)
        return Pairs(
            self.chosen_B / self.chosen_len_B,
            self.rejected_B / self.rejected_len_B,
            one_B,
            one_B,
            self.ref_chosen_B / self.chosen_len_B,
            self.ref_rejected_B / self.rejected_len_B,
        )


def pairs_of(policy: Logprobs, reference_2B: Tensor | None = None) -> Pairs:
    """The rows of a batch put into pairs; without a reference, its log-probabilities are 0."""
    reference_2B = torch.zeros_like(policy.sums) if reference_2B is None else reference_2B
    return Pairs(*policy.sums.chunk(2), *policy.lengths.chunk(2), *reference_2B.chunk(2))


def count_pairs(batch: Batch) -> Counts:
    return (batch["labels"].shape[0] // 2,)


def count_pairs_and_chosen_tokens(batch: Batch) -> Counts:
    """Pairs, and tokens of the better answers."""
    num_pairs = batch["labels"].shape[0] // 2
    return num_pairs, int((batch["labels"][:num_pairs, 1:] >= 0).sum())


def reward_metrics(chosen_B: Tensor, rejected_B: Tensor) -> Mapping[str, Tensor]:
    return {
        "rewards/chosen": mean_of(chosen_B),
        "rewards/rejected": mean_of(rejected_B),
        "rewards/accuracies": mean_of(chosen_B > rejected_B),
    }


def logprob_metrics(chosen_B: Tensor, rejected_B: Tensor) -> Mapping[str, Tensor]:
    return {"logps/chosen": mean_of(chosen_B), "logps/rejected": mean_of(rejected_B)}
