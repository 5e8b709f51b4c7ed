"""How the model's own layers are computed. The numbers differ in their last bits, the model does not."""

from typing import Annotated, Literal

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
    is_compiled: Annotated[bool, Flat("torch_compile")] = False
    """Compile the decoder layers. Takes up to a minute before the first step, so it pays in long trainings."""
    compile_backend: Annotated[
        Literal["inductor", "cudagraphs", "aot_eager", "eager"], Flat("torch_compile_backend")
    ] = "inductor"
    """torch's compiler behind torch_compile."""
    compile_mode: Annotated[
        Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] | None,
        Flat("torch_compile_mode"),
    ] = None
    """What the compiler tries hardest; its own choice when absent."""
