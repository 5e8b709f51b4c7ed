"""A tokenizer whose tokens are bytes, so that a test can say what is trained as pieces of text."""

import json
from itertools import groupby
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from ftl.tokens import MASKED, TokenizerView, Tokens

SPECIAL = ["<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<|eot_id|>"]


def save_byte_tokenizer(directory: Path, *, adds_bos: bool = True, **config: object) -> Path:
    """A tokenizer whose tokens are bytes and SPECIAL."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: id for id, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 256)])
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", **config}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


def pieces(view: TokenizerView, tokens: Tokens) -> list[tuple[str, bool]]:
    """The tokens as runs of text, each with whether it is trained."""
    assert all(label in (id, MASKED) for id, label in zip(tokens.ids, tokens.labels, strict=True))
    pairs = zip(tokens.ids, (label != MASKED for label in tokens.labels), strict=True)
    groups = [(train, [id for id, _ in group]) for train, group in groupby(pairs, key=lambda pair: pair[1])]
    return [(view.tokenizer.decode(ids, skip_special_tokens=False), train) for train, ids in groups]
