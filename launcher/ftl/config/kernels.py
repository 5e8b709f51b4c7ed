"""How the model's own layers are computed. The numbers differ in their last bits, the model does not."""

from typing import Annotated, Literal

from pydantic import Field

from ftl.config.marker import Flat
from ftl.section import Section


class KernelsSection(Section):
    """On a GPU with liger-kernel installed, each fused kernel that the architecture has is used unless it is false."""

    rope: Annotated[bool | None, Flat("liger_rope")] = None
    """Liger's rotary embeddings."""
    rms_norm: Annotated[bool | None, Flat("liger_rms_norm")] = None
    """Liger's RMSNorm."""
    layer_norm: Annotated[bool | None, Flat("liger_layer_norm")] = None
    """Liger's LayerNorm."""
    glu: Annotated[bool | None, Flat("liger_glu_activation")] = None
    """Liger's SwiGLU or GeGLU."""
    tiled_mlp: Annotated[bool, Flat("tiled_mlp")] = False
    """Compute the MLPs a tile of the row at a time, and again in the backward pass: long rows take less memory."""
    num_tiles: Annotated[int | None, Flat("tiled_mlp_num_shards"), Field(ge=1)] = None
    """Tiles of a row; when absent, tokens of the row by the width of the model."""
    is_compiled: Annotated[bool, Flat("torch_compile")] = False
    """Compile the decoder layers. Takes a quarter of a minute or more before the first step, so it pays in long
    trainings; needs a C++ compiler, which the images have."""
    compile_backend: Annotated[Literal["inductor", "aot_eager", "eager"], Flat("torch_compile_backend")] = "inductor"
    """torch's compiler behind torch_compile; the last two only trace, to look for faults."""
    compile_mode: Annotated[Literal["default", "max-autotune-no-cudagraphs"] | None, Flat("torch_compile_mode")] = None
    """What inductor tries hardest; its own choice when absent."""
