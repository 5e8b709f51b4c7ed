"""The adapter trained on top of a frozen base; None of it means a full fine-tune."""

from typing import Annotated, Literal

from pydantic import Field

from ftl.config.marker import Flat
from ftl.section import Section


class LoraSection(Section):
    """Low-rank adapters. Source: arXiv 2106.09685."""

    kind: Annotated[Literal["lora", "qlora"], Flat("adapter")]
    """Train low-rank matrices beside the frozen weights of the base; qlora holds the base in 4 bits."""
    rank: Annotated[int, Flat("lora_r"), Field(ge=1)] = 8
    """Rows and columns of the added matrices: more can learn more, and take more memory."""
    alpha: Annotated[float, Flat("lora_alpha"), Field(gt=0)] = 16
    """The update is scaled by alpha / rank."""
    dropout: Annotated[float, Flat("lora_dropout"), Field(ge=0, lt=1)] = 0.0
    """Share of the inputs of the added matrices that is dropped at random."""
    target_modules: Annotated[tuple[str, ...] | str | None, Flat("lora_target_modules")] = None
    """Names of linear layers, or one regular expression; every linear layer but the head when absent."""
    target_linear: Annotated[bool, Flat("lora_target_linear")] = False
    """Every linear layer but the head, in addition to `target_modules`."""
    modules_to_save: Annotated[tuple[str, ...], Flat("lora_modules_to_save")] = ()
    """Modules trained in full and saved with the adapter: embed_tokens, lm_head when tokens were added."""
