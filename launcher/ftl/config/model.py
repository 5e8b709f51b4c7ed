"""The base model, its tokenizer, and how its attention is computed."""

from typing import Annotated, Any, Literal

from pydantic import Field

from ftl.config.marker import Flat
from ftl.section import Section

Experts = Literal["eager", "batched_mm", "grouped_mm"]
Attention = Literal["eager", "sdpa", "varlen", "flash_attention_2", "flash_attention_3", "flex_attention"]


class SpecialTokens(Section):
    """Tokens with a role. A string the tokenizer does not have yet is added, and the embeddings grow."""

    bos_token: str | None = None
    """Begins a text."""
    eos_token: str | None = None
    """Ends an answer."""
    unk_token: str | None = None
    """Stands for text that the vocabulary lacks."""
    pad_token: str | None = None
    """Fills rows up to one length; never trained."""
    additional_special_tokens: tuple[str, ...] = ()
    """Further tokens without a role of their own, kept whole."""


class ModelSection(Section):
    base: Annotated[str, Flat("base_model"), Field(min_length=1)]
    """A directory, or a Hub repository id."""
    revision: Annotated[str | None, Flat("model_revision")] = None
    """Branch, tag or commit of the Hub repository."""
    class_name: Annotated[str, Flat("model_type"), Field(pattern=r"^[A-Za-z0-9_]+$")] = "AutoModelForCausalLM"
    """The transformers class. AutoModelForCausalLM takes the one config.json names; another name is checked with it."""
    config_source: Annotated[str | None, Flat("base_model_config")] = None
    """A directory or repository whose config.json is taken in place of the base's."""
    config_class: Annotated[str, Flat("cls_model_config"), Field(pattern=r"^[A-Za-z0-9_]+$")] = "AutoConfig"
    """The transformers class of the config. AutoConfig takes the one that its `model_type` names."""
    config_overrides: Annotated[dict[str, Any], Flat("overrides_of_model_config")] = {}  # Any: what config.json holds
    """Keys of config.json with other values, such as rope_scaling or output_router_logits."""
    load_options: Annotated[dict[str, Any], Flat("overrides_of_model_kwargs")] = {}  # Any: for transformers
    """Further arguments for the model's from_pretrained."""
    ignore_patterns: Annotated[tuple[str, ...], Flat("base_model_ignore_patterns")] = ()
    """Files of the Hub repository that are not downloaded, such as `consolidated*`. Only what is read is anyway."""
    tokenizer: Annotated[str | None, Flat("tokenizer_config")] = None
    """Where the tokenizer comes from; the base model when absent."""
    tokenizer_class: Annotated[str, Flat("tokenizer_type"), Field(pattern=r"^[A-Za-z0-9_]+$")] = "AutoTokenizer"
    """The transformers class of the tokenizer. AutoTokenizer takes the one that its own files name."""
    trust_remote_code: Annotated[bool, Flat("trust_remote_code")] = False
    """Run Python code that the model's repository brings along."""
    reinit_weights: Annotated[bool, Flat("reinit_weights")] = False
    """Start from random weights drawn with `seed`; the base then needs a config.json and no weights."""
    attention: Annotated[Attention | None, Flat("attn_implementation")] = None
    """The fastest that fits when absent: varlen where the model allows it, which computes each document of a row by
    itself with torch's own FlashAttention, and no mask. flash_attention_3 needs a Hopper GPU and its package, and
    flex_attention a GPU."""
    experts: Annotated[Experts | None, Flat("experts_implementation")] = None
    """How stacked experts are computed: one after the other (eager), or all in one product; transformers' own choice
    when absent."""
    gpu_memory_limit_gib: Annotated[float | None, Flat("gpu_memory_limit"), Field(gt=0)] = None
    """GiB of each GPU that the training may take, such as 20 or 20GiB; asking for more is running out of memory."""
    special_tokens: Annotated[SpecialTokens, Flat("special_tokens")] = SpecialTokens()
    """Tokens with a role, in place of those that the tokenizer names."""
    tokens: Annotated[tuple[str, ...], Flat("tokens")] = ()
    """Further tokens to add to the vocabulary."""
    renamed_tokens: Annotated[dict[int, Annotated[str, Field(min_length=1)]], Flat("added_tokens_overrides")] = {}
    """Id of an added token, such as one kept in reserve -> the text that stands for it from then on."""
    pads_embeddings_to_32: Annotated[bool, Flat("resize_token_embeddings_to_32x")] = False
    """Give the embeddings a multiple of 32 rows, which GPUs multiply faster."""
    shrink_embeddings: Annotated[bool, Flat("shrink_embeddings")] = False
    """Take away rows of the embeddings that no token has; they are kept otherwise."""
    mean_resizing_embeddings: Annotated[bool, Flat("mean_resizing_embeddings")] = True
    """Draw the rows of added tokens around the mean of the others, rather than around zero."""
