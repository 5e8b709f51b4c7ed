"""What is minimised."""

from typing import Annotated, Literal

from pydantic import Field

from ftl.config.grpo import GrpoSection
from ftl.config.marker import Flat
from ftl.section import Section

ObjectiveKind = Literal["sft", "dpo", "ipo", "orpo", "kto", "simpo", "cpo", "reward", "prm", "kd", "grpo"]
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

TEXTS: tuple[ObjectiveKind, ...] = ("sft", "kd")
"""Objectives that train single texts token by token."""

COMPARED: tuple[ObjectiveKind, ...] = ("dpo", "ipo", "kto")
"""Objectives that compare the model with a frozen reference: the model as it was before training."""

_BETA = 0.1


class ObjectiveSection(Section):
    kind: Annotated[ObjectiveKind, Flat("objective")] = "sft"
    """sft is next-token cross-entropy over the tokens that the format marks as trained."""
    scales_by_probability: Annotated[bool, Flat("liger_use_token_scaling")] = False
    """sft: multiply the loss of each token by the model's probability of it, which carries no gradient; evaluations
    are left as they are. Tokens that the model finds unlikely then count for less."""
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
    precompute_reference: Annotated[bool, Flat("precompute_ref_log_probs")] = False
    """dpo, ipo, kto: ask the reference about all rows before training; it then takes no memory and no time."""
    adapter_in_reference: Annotated[bool, Flat("rl_adapter_ref_model")] = False
    """dpo, ipo, kto with lora_model_dir: the reference has that adapter, in a second copy of the model."""
    orpo_alpha: Annotated[float | None, Flat("orpo_alpha"), Field(gt=0)] = None
    """orpo: weight of the odds ratio beside the cross-entropy of the better answers; as rl_beta when absent."""
    cpo_alpha: Annotated[float, Flat("cpo_alpha"), Field(ge=0)] = 1.0
    """cpo, simpo: weight of the cross-entropy of the better answers; SimPO's paper has 0."""
    simpo_gamma: Annotated[float, Flat("simpo_gamma"), Field(ge=0)] = 0.5
    """simpo: by how much the answers' rewards are to differ."""
    kto_desirable_weight: Annotated[float, Flat("kto_desirable_weight"), Field(ge=0)] = 1.0
    """kto: weight of good answers."""
    kto_undesirable_weight: Annotated[float, Flat("kto_undesirable_weight"), Field(ge=0)] = 1.0
    """kto: weight of bad answers."""
    num_labels: Annotated[int | None, Flat("num_labels"), Field(ge=1)] = None
    """Classes of the model's head: 1 for reward, at least 2 for prm, which are also the defaults."""
    center_rewards_coefficient: Annotated[float | None, Flat("center_rewards_coefficient"), Field(gt=0)] = None
    """reward: keep the scores of a pair near a sum of 0; 0.01 is a good start."""
    max_prompt_len: Annotated[int | None, Flat("max_prompt_len"), Field(ge=1)] = None
    """Preferences: of longer prompts only the last tokens are kept; no limit but sequence_len when absent."""

    kd_alpha: Annotated[float, Flat("kd_alpha"), Field(ge=0)] = 1.0
    """kd: weight of the divergence from the teacher."""
    kd_ce_alpha: Annotated[float, Flat("kd_ce_alpha"), Field(ge=0)] = 0.0
    """kd: weight of the cross-entropy of the trained tokens beside it."""
    kd_temperature: Annotated[float, Flat("kd_temperature"), Field(gt=0)] = 1.0
    """kd: teacher and model are compared at this temperature; above 1 unlikely tokens count for more."""
    kd_zscore_base_temp: Annotated[float | None, Flat("kd_zscore_base_temp"), Field(gt=0)] = None
    """kd: bring logits to mean 0 and spread 1 among the teacher's tokens, and divide by this (arXiv 2403.01643)."""
    kd_top_k_before_softmax: Annotated[bool, Flat("kd_top_k_before_softmax")] = False
    """kd: compare the shares among the teacher's tokens alone; else the model loses by expecting others, too."""

    grpo: Annotated[GrpoSection | None, Flat("trl")] = None
    """grpo: rewards, and how completions are drawn."""

    @property
    def trains_texts(self) -> bool:
        """Rows are single texts, which may be packed, split, and have a mask."""
        return self.kind in TEXTS

    @property
    def beta_or_default(self) -> float:
        return _BETA if self.beta is None else self.beta

    @property
    def is_compared(self) -> bool:
        """Whether training needs the reference."""
        if self.kind == "grpo":
            return self.grpo is not None and self.grpo.beta > 0
        return self.kind in COMPARED and not (self.kind in ("dpo", "ipo") and self.dpo_reference_free)
