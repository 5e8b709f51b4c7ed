"""The tokenizer of a training, and a model that fits it."""

import tempfile
from pathlib import Path

import torch
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_utils import align_special_tokens

from ftl.config.data import DataSection
from ftl.config.model import ModelSection
from ftl.errors import ConfigError
from ftl.tokens import TokenizerView, chat_template_source
from ftl_runtime.context import Context


def load_tokenizer(model: ModelSection, data: DataSection, ctx: Context) -> PreTrainedTokenizerBase:
    """The tokenizer with the config's tokens and chat template, and always a pad token."""
    tokenizer = _read(model, ctx)
    roles = model.special_tokens.model_dump(exclude_none=True, exclude_defaults=True)
    if extra := roles.pop("additional_special_tokens", None):
        roles["additional_special_tokens"] = list(extra)
    if roles:
        tokenizer.add_special_tokens(roles)
    if model.tokens:
        tokenizer.add_tokens(list(model.tokens))
    _ensure_pad_token(tokenizer, ctx)
    return tokenizer


def new_tokens(model: ModelSection, ctx: Context) -> list[str]:
    """The tokens of the config that the tokenizer lacks as it comes; padding, which is never looked at, left out."""
    special = model.special_tokens
    roles = (special.bos_token, special.eos_token, special.unk_token)
    wanted = [token for token in (*roles, *special.additional_special_tokens, *model.tokens) if token]
    known = _read(model, ctx).get_vocab() if wanted else {}
    return [token for token in dict.fromkeys(wanted) if token not in known]


def view_of(tokenizer: PreTrainedTokenizerBase, data: DataSection) -> TokenizerView:
    """The tokenizer as the data building reads it; the config's chat template becomes the tokenizer's own on the way,
    so that it is saved with the model."""
    with tempfile.TemporaryDirectory() as directory:
        tokenizer.save_pretrained(directory)
        view = TokenizerView.load(Path(directory))
    if data.chat_template is not None or data.chat_template_jinja is not None:
        tokenizer.chat_template = chat_template_source(data, None, view)
    return view


def fit_to_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, seed: int) -> None:
    """Grow the embeddings to the tokenizer's size, drawing the missing rows with `seed`.

    Never shrinks them: many models have more rows than tokens, for speed. Aligns the ids of special tokens.
    """
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    rows = embeddings.num_embeddings
    if len(tokenizer) > rows:
        torch.manual_seed(seed)
        model.resize_token_embeddings(len(tokenizer))
    align_special_tokens(model, tokenizer)  # type: ignore[no-untyped-call]


def _read(model: ModelSection, ctx: Context) -> PreTrainedTokenizerBase:
    source = ctx.resolve_model(model.tokenizer or model.base)
    revision = model.revision if model.tokenizer is None else None
    try:
        found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source, revision=revision, trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError) as error:
        key = "tokenizer_config" if model.tokenizer else "base_model"
        raise ConfigError(f"{key}: no tokenizer can be loaded from {source}: {_first_line(error)}") from error
    return found


def _ensure_pad_token(tokenizer: PreTrainedTokenizerBase, ctx: Context) -> None:
    if tokenizer.pad_token_id is not None:
        return
    if tokenizer.eos_token is None:
        raise ConfigError(
            "special_tokens: the tokenizer has neither a pad nor an eos token; name one, e.g. special_tokens: "
            '{pad_token: "<pad>"}'
        )
    tokenizer.pad_token = tokenizer.eos_token
    ctx.warn(
        f"the tokenizer has no pad token, so its eos token {tokenizer.eos_token!r} pads rows; "
        "padding is never trained. To use another: special_tokens: {pad_token: ...}"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
