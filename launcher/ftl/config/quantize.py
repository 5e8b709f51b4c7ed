"""The frozen base below an adapter, held in fewer bits than it is computed in."""

from typing import Annotated, Literal

from pydantic import Field

from ftl.config.marker import Flat
from ftl.section import Section

DType = Literal["bfloat16", "float16", "float32"]


class BitsAndBytesOptions(Section):
    """How bitsandbytes stores weights, by the names that transformers has for it."""

    bnb_4bit_quant_type: Literal["nf4", "fp4"] = "nf4"
    """The sixteen values of 4 bits: nf4 spreads them as trained weights are spread."""
    bnb_4bit_use_double_quant: bool = True
    """Store the scales of the blocks in 8 bits too, which saves 0.4 bits a weight."""
    bnb_4bit_compute_dtype: DType | None = None
    """What 4-bit weights are turned back into for a product; the format of `precision` when absent."""
    bnb_4bit_quant_storage: Literal["uint8", "bfloat16", "float16", "float32"] = "uint8"
    """The type of the tensor that holds them; sharding wants that of the other weights."""
    llm_int8_threshold: Annotated[float, Field(ge=0)] = 6.0
    """Input features above it are computed in 16 bits beside 8-bit weights; 0 computes none of them so."""
    llm_int8_skip_modules: tuple[str, ...] | None = None
    """Modules left as they are; the head when absent."""
    llm_int8_has_fp16_weight: Literal[False] = False
    """Weights kept in 16 bits beside those in 8 would save nothing below an adapter."""
    llm_int8_enable_fp32_cpu_offload: Literal[False] = False
    """Layers in main memory cannot be trained through."""


class QuantSection(Section):
    in_8bit: Annotated[bool, Flat("load_in_8bit")] = False
    """Hold the frozen base in 8 bits, by bitsandbytes: about 1 byte a parameter."""
    in_4bit: Annotated[bool, Flat("load_in_4bit")] = False
    """Hold the frozen base in 4 bits, by bitsandbytes: about half a byte a parameter. `adapter: qlora` says it too."""
    options: Annotated[BitsAndBytesOptions, Flat("bnb_config_kwargs")] = BitsAndBytesOptions()
    """How bitsandbytes stores them."""

    is_gptq: Annotated[bool, Flat("gptq")] = False
    """The base brings weights that GPTQ quantised; gptqmodel and optimum read them."""

    @property
    def num_bits(self) -> int | None:
        """4 or 8 where bitsandbytes quantises the base while it is loaded."""
        return 4 if self.in_4bit else 8 if self.in_8bit else None
