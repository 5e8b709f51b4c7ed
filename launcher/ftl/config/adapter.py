"""The adapter trained on top of a frozen base; None of it means a full fine-tune."""

from typing import Annotated, Literal

from pydantic import Field

from ftl.config.marker import Flat
from ftl.section import Section

CHANGES_BASE = ("pissa", "olora")
"""How the names of those starts begin that take out of the base what they put into the adapter."""


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
    target_parameters: Annotated[tuple[str, ...], Flat("lora_target_parameters")] = ()
    """Names of weights that are no layers of their own, such as mlp.experts.down_proj; then no layer unless named."""
    layers_to_transform: Annotated[tuple[int, ...], Flat("peft_layers_to_transform")] = ()
    """Numbers of the layers that get an adapter, from 0; all when absent."""
    layers_pattern: Annotated[tuple[str, ...], Flat("peft_layers_pattern")] = ()
    """Name of the list that the numbers count in, such as layers or h, where a model has several."""
    use_dora: Annotated[bool, Flat("peft_use_dora")] = False
    """Train the length of each output feature beside its direction: learns more at a low rank, and takes longer."""
    use_rslora: Annotated[bool, Flat("peft_use_rslora")] = False
    """Scale the update by alpha / sqrt(rank), so that high ranks learn as fast as low ones."""
    init_weights: Annotated[bool | str, Flat("peft_init_lora_weights")] = True
    """How the matrices start: true, gaussian, orthogonal, pissa, pissa_niter_N, olora, mica or loftq.

    pissa and olora start from the largest parts of the base's weights, mica from the smallest; loftq from what 4 bits
    lost of them. The finished adapter fits the base as it was in every case but loftq, which wants it in 4 bits.
    """
    modules_to_save: Annotated[tuple[str, ...], Flat("lora_modules_to_save")] = ()
    """Modules trained in full and saved with the adapter: embed_tokens, lm_head when tokens were added."""
    restarts: Annotated[bool, Flat("relora")] = False
    """Merge the adapter into the base and begin anew every jagged_restart_steps. Source: arXiv 2307.05695.

    The finished model is the whole base, with everything merged.
    """
    prune_ratio: Annotated[float, Flat("relora_prune_ratio"), Field(ge=0, le=1)] = 0.9
    """Share of the optimizer's moments, the smallest ones, that is forgotten at a restart."""
    merges_on_cpu: Annotated[bool, Flat("relora_cpu_offload")] = False
    """Merge in main memory, which spares the GPU one layer in fp32."""
    initial: Annotated[str | None, Flat("lora_model_dir")] = None
    """An adapter to go on training: a directory, or a Hub repository id. Its rank and target modules stay."""
