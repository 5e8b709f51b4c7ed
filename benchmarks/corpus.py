"""Text, conversations and a tokenizer made here, the same on every machine with the same Python."""

import importlib
import json
import random
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

# How Llama 3 cuts text before merging. Source: llama.com, llama-models, tokenizer.py.
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
)
SPECIAL = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>"]


def paragraphs() -> list[str]:
    """The paragraphs of the docstrings of Python's standard library."""
    found: set[str] = set()
    for module in sorted(sys.stdlib_module_names):
        if not module.startswith("_") and module not in {"antigravity", "this", "idlelib", "lib2to3", "turtledemo"}:
            found.update(_paragraphs_of(module))
    return sorted(found)


def conversations(count: int, seed: int = 0) -> Iterator[list[dict[str, str]]]:
    """Chats of one to three turns, about 550 tokens each, of sentences drawn at random."""
    rng = random.Random(seed)
    texts = paragraphs()
    for _ in range(count):
        messages = [{"role": "system", "content": rng.choice(texts)}] if rng.random() < 0.3 else []
        for _ in range(rng.randint(1, 3)):
            messages.append({"role": "user", "content": " ".join(rng.choices(texts, k=rng.randint(1, 2)))})
            messages.append({"role": "assistant", "content": " ".join(rng.choices(texts, k=rng.randint(2, 5)))})
        yield messages


def make_tokenizer(directory: Path, vocabulary: int = 32_000) -> Path:
    """A byte-level BPE tokenizer with Llama 3's split and special tokens, in the files that transformers reads."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(paragraphs(), trainer)
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|eot_id|>",
        "pad_token": "<|eot_id|>",
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return directory


def _paragraphs_of(module: str) -> list[str]:
    try:
        with warnings.catch_warnings(action="ignore"):
            loaded = importlib.import_module(module)
    except Exception:  # a module may refuse this platform in any way it likes
        return []
    members = [loaded, *(member for name, member in sorted(vars(loaded).items()) if not name.startswith("_"))]
    documents = [doc for doc in (getattr(member, "__doc__", None) for member in members) if isinstance(doc, str)]
    pieces = [" ".join(piece.split()) for doc in documents for piece in re.split(r"\n\s*\n", doc)]
    return [piece for piece in pieces if len(piece) > 60]
