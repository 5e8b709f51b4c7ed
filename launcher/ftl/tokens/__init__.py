"""Samples to token ids and labels with `tokenizers` and jinja2 alone: the same on a laptop and in the container."""

from ftl.tokens.chat import ChatTemplate
from ftl.tokens.choice import chat_template_source
from ftl.tokens.encode import MASKED, Tokens, encode, encode_any
from ftl.tokens.pieces import num_pieces
from ftl.tokens.recipe import Recipe
from ftl.tokens.view import TokenizerView

__all__ = [
    "MASKED",
    "ChatTemplate",
    "Recipe",
    "TokenizerView",
    "Tokens",
    "chat_template_source",
    "encode",
    "encode_any",
    "num_pieces",
]
