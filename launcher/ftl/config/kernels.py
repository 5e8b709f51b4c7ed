"""How the model's own layers are computed. The numbers differ in their last bits, the model does not."""

from typing import Annotated

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
