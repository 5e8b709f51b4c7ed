"""Weights and activations in few bits, by torchao: a finished model in them, and a training that prepares for it."""

from typing import Annotated, Literal

from pydantic import Field

from ftl.config.marker import Flat
from ftl.section import Section

WeightFormat = Literal["int8", "int4", "fp8"]
ActivationFormat = Literal["int8", "fp8"]


class Scheme(Section):
    """How linear layers are rounded; the head stays as it is. By the names people write."""

    weight_dtype: WeightFormat = "int8"
    """What weights become: int8, int4 (16 values, kept one a byte) or fp8."""
    activation_dtype: ActivationFormat | None = None
    """What the inputs of the layers are rounded to while it computes; beside fp8 weights fp8, beside others int8."""
    group_size: Annotated[int, Field(ge=1)] = 32
    """So many weights in a row have one scale, in int8 and int4; it must divide the inputs of every layer."""
    quantize_embedding: bool = False
    """Round the embeddings too, in int8 and int4, to the format of the weights."""


class Qat(Scheme):
    fake_quant_after_n_steps: Annotated[int, Field(ge=0)] = 0
    """So many steps are trained without rounding first."""


class RoundingSection(Section):
    qat: Annotated[Qat | None, Flat("qat")] = None
    """Train with weights and activations rounded in the forward pass, so that they lose little in `ftl quantize`."""
    quantization: Annotated[Scheme | None, Flat("quantization")] = None
    """What `ftl quantize` makes of the finished model; what qat says when absent."""
