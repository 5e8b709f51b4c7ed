"""What can be minimised: one row an objective, one file a loss."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from ftl.config.objective import ObjectiveKind, ObjectiveSection
from ftl_runtime.objectives.dpo import count_dpo, dpo_terms
from ftl_runtime.objectives.sft import count_sft, sft_terms
from ftl_runtime.objectives.terms import Batch, Counts, Scorer, Terms

Head = Literal["lm", "sequence", "token"]
"""What the model ends in: a token's successor, or classes of a whole text or of each token."""

Layout = Literal["texts", "pairs"]
"""What a row of the data is: texts packed into a row of tokens, or a better and a worse answer."""


@dataclass(frozen=True)
class Objective:
    layout: Layout
    count: Callable[[Batch, ObjectiveSection], Counts]
    """What each term of the loss is divided by, as a micro-batch on the host has it."""
    terms: Callable[[Scorer, Batch, ObjectiveSection], Terms]
    head: Head = "lm"
    is_likelihood: bool = False
    """The loss is in nats per token, so a perplexity can be told."""


_DPO = Objective("pairs", count_dpo, dpo_terms)

OBJECTIVES: Mapping[ObjectiveKind, Objective] = {
    "sft": Objective("texts", count_sft, sft_terms, is_likelihood=True),
    "dpo": _DPO,
    "ipo": _DPO,
}
