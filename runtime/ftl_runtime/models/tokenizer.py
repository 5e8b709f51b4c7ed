"""The tokenizer of a training, and a model that fits it."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.trainer_utils import align_special_tokens

from ftl.config.data import DataSection
from ftl.config.model import ModelSection
from ftl.errors import ConfigError
from ftl.tokens import TokenizerView, chat_template_source
from ftl.tokens.rename import copy_renamed
from ftl_runtime.context import Context

_MULTIPLE = 32
_PAD_TOKENS = ("<pad>", "[PAD]", "<|pad|>", "<|padding|>", "<|finetune_right_pad_id|>", "<|endoftext|>")


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


def fit_to_tokenizer(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, section: ModelSection, *, seed: int
) -> None:
    """Give the embeddings a row for every token, drawing the missing ones with `seed`.

    Without `shrink_embeddings` no row goes: many models have more rows than tokens, for speed. Aligns the ids of
    special tokens.
    """
    embeddings = model.get_input_embeddings()
    assert isinstance(embeddings, nn.Embedding)
    rows = embeddings.num_embeddings
    wanted = len(tokenizer) if section.shrink_embeddings else max(rows, len(tokenizer))
    if section.pads_embeddings_to_32:
        wanted = -(-wanted // _MULTIPLE) * _MULTIPLE
    if wanted != rows:
        torch.manual_seed(seed)
        model.resize_token_embeddings(wanted, mean_resizing=section.mean_resizing_embeddings)
    align_special_tokens(model, tokenizer)  # type: ignore[no-untyped-call]


def _read(model: ModelSection, ctx: Context) -> PreTrainedTokenizerBase:
    source = ctx.resolve_model(model.tokenizer or model.base)
    revision = model.revision if model.tokenizer is None else None
    kind = _tokenizer_class(model.tokenizer_class)
    _refuse_files_elsewhere(Path(source))
    try:
        with _with_renamed(source, model.renamed_tokens) as place:
            found: PreTrainedTokenizerBase = kind.from_pretrained(
                place, revision=revision, trust_remote_code=model.trust_remote_code
            )
    except (OSError, ValueError) as error:
        key = "tokenizer_config" if model.tokenizer else "base_model"
        raise ConfigError(f"{key}: no tokenizer can be loaded from {source}: {_first_line(error)}") from error
    found.name_or_path = source
    older = Path(source) / "chat_template.json"  # of processors, which tokenizers do not read
    if found.chat_template is None and older.is_file():
        found.chat_template = json.loads(older.read_bytes()).get("chat_template")
    return found


def _refuse_files_elsewhere(directory: Path) -> None:
    """Raise ConfigError where its settings name a file of this machine outside the directory: that would be read as a
    vocabulary, and saved with the model. Many name places of their makers' machines, which are not here."""
    try:
        settings = json.loads((directory / "tokenizer_config.json").read_bytes())
    except (OSError, ValueError):
        return  # none, or a broken one, which transformers has a sentence for
    for key, value in settings.items() if isinstance(settings, dict) else ():
        if not key.endswith("_file") or not isinstance(value, str):
            continue
        # Relative ones are looked up in the working directory.
        inside = Path(value).absolute().parent.resolve().is_relative_to(directory.resolve())
        if Path(value).is_file() and not inside:
            raise ConfigError(
                f"{directory}/tokenizer_config.json: {key}: {value}: leads out of the model's directory, to a file of "
                "this machine; remove it, or copy the file there"
            )


@contextmanager
def _with_renamed(source: str, texts: Mapping[int, str]) -> Iterator[str]:
    """Where the tokenizer lies with other texts for those ids: a copy, for as long as the block runs."""
    if not texts:
        yield source
        return
    with tempfile.TemporaryDirectory() as copy:
        copy_renamed(Path(source), Path(copy), texts)
        yield copy


def _tokenizer_class(name: str) -> Any:  # Any: the auto class and the others have no common base
    found = getattr(transformers, name, None)
    if isinstance(found, type) and hasattr(found, "from_pretrained") and "Tokenizer" in name:
        return found
    raise ConfigError(f"tokenizer_type: {name}: transformers {transformers.__version__} has no such tokenizer class")


def _ensure_pad_token(tokenizer: PreTrainedTokenizerBase, ctx: Context) -> None:
    """A token that pads: the tokenizer's, else one of its vocabulary that is made for it, else the eos token."""
    if tokenizer.pad_token_id is not None:
        return
    vocabulary = tokenizer.get_vocab()
    spare = next((token for token in _PAD_TOKENS if token in vocabulary and token != tokenizer.eos_token), None)
    if spare is not None:
        tokenizer.pad_token = spare
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
