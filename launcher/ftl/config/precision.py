"""Number formats, and memory saved at the price of time."""

from typing import Annotated, Literal

from ftl.config.marker import Flat
from ftl.section import Section


class PrecisionSection(Section):
    compute: Annotated[Literal["auto", "bf16", "fp16", "fp32"], Flat("precision")] = "auto"
    """auto is bf16 where the GPU has it, fp16 on older GPUs, fp32 without a GPU."""
    weights: Annotated[Literal["bf16", "fp16", "fp32"] | None, Flat("weights_dtype")] = None
    """What weights are held in. When absent, those that are trained in fp32, a frozen base in the compute format.

    bf16 halves the memory of a full fine-tune, and loses updates that are small beside their weight.
    """
    tf32: Annotated[bool | None, Flat("tf32")] = None
    """Let fp32 products use TF32 on GPUs that have it; their default when absent."""
    fp8: Annotated[bool, Flat("fp8")] = False
    """Multiply in fp8 in linear layers, forward and backward, the head left out: faster for large layers on an H100 or
    later. Weights are held, trained and saved as without it."""
    gradient_checkpointing: Annotated[bool | None, Flat("gradient_checkpointing")] = None
    """Recompute activations in the backward pass instead of keeping them. When absent: on a GPU, of as few layers as it
    has no room for; without one, of none."""
    activation_offloading: Annotated[bool, Flat("activation_offloading")] = False
    """Recompute them all, and hold what is kept for that in main memory until the backward pass."""
