"""What can be minimised: one row an objective, one file a loss."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ftl.config.objective import ObjectiveKind, ObjectiveSection
from ftl_runtime.objectives.cpo import count_cpo, cpo_terms
from ftl_runtime.objectives.dpo import count_dpo, dpo_terms
from ftl_runtime.objectives.grpo import count_grpo, grpo_terms
from ftl_runtime.objectives.kd import count_kd, kd_terms
from ftl_runtime.objectives.kto import count_kto, estimate_kto, kto_terms
from ftl_runtime.objectives.orpo import count_orpo, orpo_terms
from ftl_runtime.objectives.prm import count_prm, prm_terms
from ftl_runtime.objectives.reward import count_reward, reward_terms
from ftl_runtime.objectives.sft import count_sft, sft_terms
from ftl_runtime.objectives.terms import Batch, Counts, Scorer, Terms

Head = Literal["lm", "pictures", "sequence", "token"]
"""What the model ends in: a token's successor, of texts or of texts with pictures, or classes of a whole text or of
each token."""

Layout = Literal["texts", "pairs", "judged", "scored", "steps", "prompts"]
"""What a row of the data is: texts packed into a row of tokens, a better and a worse answer, a good or bad answer, a
better and a worse whole text, a text whose steps have classes, or a prompt that the model answers itself."""


@dataclass(frozen=True)
class Objective:
    layout: Layout
    count: Callable[[Batch, ObjectiveSection], Counts]
    """What each term of the loss is divided by, as a micro-batch on the host has it."""
    terms: Callable[[Scorer, Batch, ObjectiveSection], Terms]
    estimate: Callable[[Scorer, Batch], Tensor] | None = None
    """[2], a sum and over how many: what the loss needs to know of the whole accumulated batch beforehand. Summed over
    micro-batches and ranks, it is in every batch as `estimate`."""
    head: Head = "lm"
    num_classes: int | None = None
    """Of a head for classes, where the config does not say."""
    is_likelihood: bool = False
    """The loss is in nats per token, so a perplexity can be told."""


_DPO = Objective("pairs", count_dpo, dpo_terms)
_CPO = Objective("pairs", count_cpo, cpo_terms)

OBJECTIVES: Mapping[ObjectiveKind, Objective] = {
    "sft": Objective("texts", count_sft, sft_terms, is_likelihood=True),
    "dpo": _DPO,
    "ipo": _DPO,
    "orpo": Objective("pairs", count_orpo, orpo_terms),
    "cpo": _CPO,
    "simpo": _CPO,
    "kto": Objective("judged", count_kto, kto_terms, estimate_kto),
    "reward": Objective("scored", count_reward, reward_terms, head="sequence", num_classes=1),
    "prm": Objective("steps", count_prm, prm_terms, head="token", num_classes=2),
    "kd": Objective("texts", count_kd, kd_terms),
    "grpo": Objective("prompts", count_grpo, grpo_terms),
}
