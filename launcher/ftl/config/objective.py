"""What is minimised."""

from typing import Annotated, Literal

from pydantic import Field

from ftl.config.marker import Flat
from ftl.section import Section

ObjectiveKind = Literal["sft", "dpo", "ipo", "orpo", "kto", "simpo", "cpo", "reward", "prm"]
DpoLoss = Literal[
    "sigmoid",
    "sigmoid_norm",
    "hinge",
    "ipo",
    "robust",
    "exo_pair",
    "nca_pair",
    "bco_pair",
    "sppo_hard",
    "apo_zero",
    "apo_down",
    "aot",
    "aot_unpaired",
    "discopop",
]

BUILT: tuple[ObjectiveKind, ...] = ("sft", "dpo", "ipo")
"""What the runtime trains. The data of the others can be checked and looked at."""

COMPARED: tuple[ObjectiveKind, ...] = ("dpo", "ipo", "kto")
"""Objectives that compare the model with a frozen reference: the model as it was before training."""

_BETA = 0.1


class ObjectiveSection(Section):
    kind: Annotated[ObjectiveKind, Flat("objective")] = "sft"
    """sft is next-token cross-entropy over the tokens that the format marks as trained."""
    beta: Annotated[float | None, Flat("rl_beta"), Field(gt=0)] = None
    """Preferences: how strongly the model is held to its reference, or how steep the loss is; 0.1 when absent."""
    dpo_loss_type: Annotated[tuple[DpoLoss, ...], Flat("dpo_loss_type"), Field(min_length=1)] = ("sigmoid",)
    """dpo: the loss by its name in trl, or several that are added up."""
    dpo_label_smoothing: Annotated[float | None, Flat("dpo_label_smoothing"), Field(ge=0, lt=0.5)] = None
    """dpo: the share of the pairs that may be the wrong way round; 0 when absent, 0.001 for exo_pair."""
    dpo_use_weighting: Annotated[bool, Flat("dpo_use_weighting")] = False
    """dpo, ipo: pairs count by how likely the model is to write such answers itself (WPO)."""
    dpo_norm_loss: Annotated[bool, Flat("dpo_norm_loss")] = False
    """dpo: compare log-probabilities per token rather than of whole answers."""
    dpo_reference_free: Annotated[bool, Flat("dpo_reference_free")] = False
    """dpo, ipo: compare with a reference that likes all answers alike, which takes no memory and no time."""
    rpo_alpha: Annotated[float | None, Flat("rpo_alpha"), Field(gt=0)] = None
    """dpo, ipo: add so many times the cross-entropy of the better answers (RPO)."""
    max_prompt_len: Annotated[int | None, Flat("max_prompt_len"), Field(ge=1)] = None
    """Preferences: of longer prompts only the last tokens are kept; no limit but sequence_len when absent."""

    @property
    def beta_or_default(self) -> float:
        return _BETA if self.beta is None else self.beta

    @property
    def is_compared(self) -> bool:
        """Whether training needs the reference."""
        return self.kind in COMPARED and not (self.kind in ("dpo", "ipo") and self.dpo_reference_free)
