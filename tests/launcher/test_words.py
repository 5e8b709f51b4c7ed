"""Whatever the text is: ids made by words are the tokenizer's own, or the words are left alone."""

import os
import unicodedata
from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

from ftl.formats.example import Example, Segment
from ftl.tokens import TokenizerView, encode
from ftl.tokens import words as words_module
from ftl.tokens.words import WordIds

Pre = pre_tokenizers.PreTokenizer

# As these models publish them in tokenizer.json.
REGEXES = {
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+",
    "qwen3.5": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "gpt-oss": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "tekken": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "gpt2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
}


def split(regex: str, behavior: str = "isolated", invert: bool = False) -> Pre:
    cut = pre_tokenizers.Split(Regex(regex), behavior, invert)
    return pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


GPT2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
PRE_TOKENIZERS = {
    **{name: split(regex) for name, regex in REGEXES.items()},
    "phi4": split(REGEXES["llama3"], "removed", invert=True),
    "gpt2 itself": GPT2,
    "starcoder": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT2]),
}

CORPUS = [
    "The answer's 1234, isn't it?\n\n  I'LL say  so...   \n",
    "assistant\n\nuser\r\n\t system\n\n\n ((x + 1) / 20) -- THE END!!\n",
    "Le caf\u00e9 \u00e9tait tr\u00e8s ferm\u00e9 \u2013 d\u00e9j\u00e0 vu \u2019s ",
    "\u043f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440 \u4f60\u597d \u4e16\u754c ",
    "\u0661\u0662\u0663 e\u0301 \U0001f600\u200d ",
]


def byte_level(pre_tokenizer: Pre, *, normalized: bool = True, **model: Any) -> Tokenizer:  # Any: options of BPE
    """A tokenizer whose merges go through CORPUS, with tokens added that have other tokens in them."""
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    tokenizer.add_special_tokens(["<s>", "<|end|>", "<|end|>\n", "\u00ab\u00e9\u00bb"])
    tokenizer.add_tokens([AddedToken(token, normalized=normalized) for token in ("the end", "<|", "\ufb01x", "<s><s>")])
    return tokenizer


@pytest.fixture(scope="module", params=PRE_TOKENIZERS.values(), ids=PRE_TOKENIZERS.keys())
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return byte_level(request.param, ignore_merges=request.param is PRE_TOKENIZERS["llama3"])


@pytest.fixture(scope="module")
def words(tokenizer: Tokenizer) -> WordIds:
    """One for all texts, so that each finds what the others left in it."""
    words = WordIds.of(tokenizer)
    assert words is not None, "the tokenizer is one of those proven"
    return words


ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ASCII_TEXT = st.text(st.characters(max_codepoint=127), max_size=12)
PIECES = st.sampled_from(
    [
        *"aZ019 \n\r\t\x0b\x1c\x1f\x7f'.(/<",
        *[
            "'s",
            "'LL",
            "'\u017f",
            " x",
            "x ",
            "  ",
            "   1",
            " \n\n ",
            "\u2019t",
            "caf\u00e9 ",
            " \u043c\u0438\u0440 \u043c",
        ],
        *[
            "<s>",
            "<|end|>",
            "<|end|>\n",
            "<|",
            "the end",
            "\u00ab\u00e9\u00bb",
            "\ufb01x",
            "e\u0301",
            "\u0301",
            "\u0130",
        ],
        *[
            "\u00a0",
            "\u2003",
            "\x85",
            "\u4f60\u597d",
            "\u0661\u0662\u0663\u0664",
            "\u00bd",
            "\U0001f600",
            "\U00010400",
            "\u01c5",
        ],
    ]
)
TEXT = st.one_of(ANY_TEXT, ASCII_TEXT, st.lists(st.one_of(PIECES, ANY_TEXT), max_size=12).map("".join))


def own_ids(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]


@settings(deadline=None, max_examples=150)
@given(st.lists(TEXT, max_size=4))
@example(["a " * 3 + "\u00e9", "<s><s><s>the end<|<|end|>\n"])
def test_ids_of_any_text_are_those_of_the_tokenizer(tokenizer: Tokenizer, words: WordIds, texts: list[str]) -> None:
    assert words.encode(texts) == own_ids(tokenizer, texts)


def test_ids_around_every_ascii_character_are_those_of_the_tokenizer(tokenizer: Tokenizer, words: WordIds) -> None:
    around = ["", " ", "a", "B", "1", ".", "\n", "'", "  "]
    texts = [before + chr(code) + after for code in range(128) for before, after in product(around, repeat=2)]
    assert words.encode(texts) == own_ids(tokenizer, texts)


@settings(deadline=None, max_examples=100)
@given(st.lists(TEXT, max_size=4))
@example(["<|end\u037e|> \u212ae\u0301 a", "a e\u0301", "a \u0301b"])
def test_ids_under_nfc_are_those_of_the_tokenizer(nfc: tuple[Tokenizer, WordIds], texts: list[str]) -> None:
    tokenizer, words = nfc
    assert words.encode(texts) == own_ids(tokenizer, texts)


@pytest.fixture(scope="module")
def nfc() -> tuple[Tokenizer, WordIds]:
    """As Qwen has it."""
    tokenizer = byte_level(PRE_TOKENIZERS["qwen2"], normalized=False)
    tokenizer.normalizer = normalizers.NFC()
    words = WordIds.of(tokenizer)
    assert words is not None
    return tokenizer, words


def test_memory_is_begun_anew_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words_module, "_MAX_KEPT_BYTES", 20_000)  # about ninety words
    tokenizer = byte_level(PRE_TOKENIZERS["llama3"])
    words = WordIds.of(tokenizer)
    assert words is not None
    texts = [f" x{chr(97 + i)}{chr(97 + j)} \u00e9{chr(97 + j)}" for i, j in product(range(26), repeat=2)]
    kept = []
    for start in range(0, len(texts), 13):
        assert words.encode(texts[start : start + 13]) == own_ids(tokenizer, texts[start : start + 13])
        kept.append(words.num_kept_bytes)
    assert max(kept) < 20_000 + 13 * 3 * 300
    assert any(after < before for before, after in pairwise(kept))


def changed(change: Callable[[Tokenizer], None], *, normalized: bool = True, **model: Any) -> Callable[[], Tokenizer]:
    def make() -> Tokenizer:
        tokenizer = byte_level(PRE_TOKENIZERS["llama3"], normalized=normalized, **model)
        change(tokenizer)
        return tokenizer

    return make


def set_part(name: str, value: object) -> Callable[[Tokenizer], None]:
    return lambda tokenizer: setattr(tokenizer, name, value)


def wordpiece() -> Tokenizer:
    """As BERT has it."""
    vocab = {"[UNK]": 0, "the": 1, "end": 2, "##s": 3, "a": 4, "caf": 5, "##\u00e9": 6, "'": 7}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


def unigram() -> Tokenizer:
    """As T5 and other sentencepiece models have it."""
    pieces = [("<unk>", 0.0), ("\u2581", -2.0), ("\u2581the", -1.0), ("a", -3.0), ("\u2581a", -2.5), ("s", -3.5)]
    tokenizer = Tokenizer(models.Unigram(pieces, 0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def sentencepiece_bpe() -> Tokenizer:
    """As Llama 2 and Gemma have it: no words at all."""
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"\u2581": 256, "a": 257, "\u2581a": 258}
    tokenizer = Tokenizer(models.BPE(vocab, [("\u2581", "a")], byte_fallback=True, unk_token="<0x00>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    return tokenizer


LEFT_ALONE = {
    "wordpiece": wordpiece,
    "unigram": unigram,
    "sentencepiece": sentencepiece_bpe,
    "no words": changed(set_part("pre_tokenizer", pre_tokenizers.ByteLevel(False, use_regex=False))),
    "prefix space": changed(set_part("pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True))),
    "other regex": changed(set_part("pre_tokenizer", split(r"(?<=a)b|\s+|\S+"))),
    "gaps": changed(set_part("pre_tokenizer", split(REGEXES["llama3"], "removed"))),
    "cut twice": changed(
        set_part(
            "pre_tokenizer", pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(REGEXES["llama3"]), "isolated"), GPT2])
        )
    ),
    "digits together": changed(
        set_part("pre_tokenizer", pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False), GPT2]))
    ),
    "lower case": changed(set_part("normalizer", normalizers.Lowercase())),
    "nfc before added tokens": changed(set_part("normalizer", normalizers.NFC())),
    "stripping token": changed(lambda tokenizer: tokenizer.add_tokens([AddedToken("<mask>", lstrip=True)]) and None),
    "word token": changed(lambda tokenizer: tokenizer.add_tokens([AddedToken("end", single_word=True)]) and None),
    "special tokens as text": changed(set_part("encode_special_tokens", True)),
    "dropout": changed(lambda tokenizer: None, dropout=0.5),
}


@pytest.mark.parametrize("make", LEFT_ALONE.values(), ids=LEFT_ALONE.keys())
def test_tokenizer_that_is_not_proven_has_no_words(make: Callable[[], Tokenizer]) -> None:
    assert WordIds.of(make()) is None


@pytest.fixture(scope="module", params=[name for name in LEFT_ALONE if name != "dropout"])
def other_view(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TokenizerView:
    directory: Path = tmp_path_factory.mktemp("other")
    LEFT_ALONE[request.param]().save(str(directory / "tokenizer.json"))
    return TokenizerView.load(directory)


@settings(deadline=None, max_examples=20)
@given(st.lists(TEXT, max_size=4))
def test_other_tokenizers_make_their_own_ids(other_view: TokenizerView, texts: list[str]) -> None:
    tokens = encode([whole(text) for text in texts], other_view)
    assert [row.ids for row in tokens] == own_ids(other_view.tokenizer, texts)


class FakeWords:
    def encode(self, texts: list[str]) -> list[list[int]]:
        return [[0] for _ in texts]


@pytest.mark.parametrize(("num_cores", "ids"), [(4, [0]), (5, [64])])
def test_words_are_used_on_few_cores_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_cores: int, ids: list[int]
) -> None:
    byte_level(PRE_TOKENIZERS["llama3"]).save(str(tmp_path / "tokenizer.json"))
    view = TokenizerView.load(tmp_path)
    object.__setattr__(view, "words", FakeWords())
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(num_cores)), raising=False)
    (tokens,) = encode([whole("a")], view)
    assert tokens.ids == ids  # "a" is the 65th of the bytes that stand for themselves, which begin with "!"


def whole(text: str) -> Example:
    return Example((Segment(text, False),), bos=False, num_eos=0, is_one_text=True)


def test_letters_between_which_texts_are_cut_are_letters() -> None:
    """A character of another category might be one that a regex goes on after."""
    found = [chr(code) for code in range(0x10000) if words_module._BETWEEN_WORDS.search(f"{chr(code)} a")]
    assert len(found) == 52 + 23 + 31 + 135 + 64
    assert {unicodedata.category(char)[0] for char in found} == {"L"}
