"""The base model, its tokenizer, and how its attention is computed."""

from typing import Annotated, Literal

from pydantic import Field

from ftl.config.marker import Flat
from ftl.section import Section

Attention = Literal["eager", "sdpa", "flash_attention_2"]


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
    tokenizer: Annotated[str | None, Flat("tokenizer_config")] = None
    """Where the tokenizer comes from; the base model when absent."""
    trust_remote_code: Annotated[bool, Flat("trust_remote_code")] = False
    """Run Python code that the model's repository brings along."""
    reinit_weights: Annotated[bool, Flat("reinit_weights")] = False
    """Start from random weights drawn with `seed`; the base then needs a config.json and no weights."""
    attention: Annotated[Attention | None, Flat("attn_implementation")] = None
    """None takes the fastest that the machine has."""
    special_tokens: Annotated[SpecialTokens, Flat("special_tokens")] = SpecialTokens()
    """Tokens with a role, in place of those that the tokenizer names."""
    tokens: Annotated[tuple[str, ...], Flat("tokens")] = ()
    """Further tokens to add to the vocabulary."""
