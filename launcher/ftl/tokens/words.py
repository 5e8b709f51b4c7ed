"""The ids of texts by their words: what the tokenizer makes of a word is asked for once, and looked up from then on.

Byte-level tokenizers cut a text at its added tokens, then into words by a regex, and merge within each word alone. In
ASCII texts Python's `re` cuts by the same regex, for a quarter of the work that the tokenizer has with the whole text.
Other texts are first cut between a letter and a space with a letter after it, where no regex here goes on or looks
back; of the pieces, those with other characters than ASCII are left to the tokenizer, and kept like words.
"""

import json
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from tokenizers import AddedToken, Tokenizer, models

_MAX_KEPT_BYTES = 32 * 2**20  # a batch of texts may go beyond it
_ENTRY_BYTES = 200  # of a word and its ids, beside their characters and tokens

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s"
    rf"|%s| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
)
_MARK_SPLIT = r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|"
_GPT2_SPLIT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SPLITS = frozenset(
    [
        _GPT2_SPLIT,
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        # Llama 3, GPT-4 and those after them; Qwen 2 and 3; Qwen 3.5
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",
        rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",
        f"{_CONTRACTIONS}{_MARK_SPLIT}{_SPACES}",
        # GPT-4o, gpt-oss and Llama 4; Mistral's Tekken
        _O200K % (f"{_CONTRACTIONS}?", f"{_CONTRACTIONS}?", r"\p{N}{1,3}"),
        _O200K % ("", "", r"\p{N}"),
    ]
)
"""The regexes that are proven to cut as they do in the tokenizer; another one may well look back."""

# GPT-2's regex on what is left between single digits, each a word: StarCoder and SmolLM 2.
_DIGITS_THEN_GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?![^\s\p{N}])|\s+"

_ASCII_MEMBERS = {"L": "A-Za-z", "Lu": "A-Z", "Ll": "a-z", "Lt": "", "Lm": "", "Lo": "", "M": "", "N": "0-9"}
_BYTE_LEVEL = {byte: chr(256 + place) for place, byte in enumerate([*range(33), 127])}
"""How byte-level models spell ASCII."""

# Letters since the first Unicode, so that no version of a regex engine takes them for anything else.
_LETTER = "[A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017e\u0410-\u044f]"
_BETWEEN_WORDS = re.compile(f"(?<={_LETTER})(?= {_LETTER})")


class WordIds:
    """The ids of texts, in the memory of some ten thousand words. May be used by several threads."""

    def __init__(self, tokenizer: Tokenizer, word: re.Pattern[str]) -> None:
        """Takes what `of` has proven."""
        self._tokenizer = tokenizer
        self._find_words = word.findall
        tokens = tokenizer.get_added_tokens_decoder()
        self._added = {token.content: _packed([id]) for id, token in tokens.items()}
        self._cuts = [cut for flag in (False, True) if (cut := _cut_at(tokens.values(), is_normalized=flag))]
        self._known = _Known(tokenizer)

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "WordIds | None":
        """None for a tokenizer of which it is not proven that it makes the same ids."""
        pattern = _word_pattern(_state(tokenizer.pre_tokenizer))
        tokens = tokenizer.get_added_tokens_decoder().values()
        normalizer = _state(tokenizer.normalizer)
        is_proven = (
            pattern is not None
            and normalizer in (None, {"type": "NFC"})  # which changes no ASCII, and nothing across a space
            and not (normalizer and any(token.normalized for token in tokens))
            and not any(token.lstrip or token.rstrip or token.single_word or not token.content for token in tokens)
            and isinstance(tokenizer.model, models.BPE)
            and not tokenizer.model.dropout
            and not tokenizer.encode_special_tokens
            and tokenizer.truncation is None
            and tokenizer.padding is None
        )
        return cls(tokenizer, re.compile(_for_ascii(pattern), re.ASCII)) if is_proven and pattern else None

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without those that the tokenizer puts around it."""
        known = self._known = self._known.unless_full()
        cut = [self._pieces(text) for text in texts]
        known.learn({piece for pieces in cut for piece in pieces if not piece.isascii()} - self._added.keys())
        return [array("i", b"".join(self._packed(pieces, known))).tolist() for pieces in cut]

    @property
    def num_kept_bytes(self) -> int:
        """About how much memory the words take."""
        return self._known.num_bytes

    def _pieces(self, text: str) -> list[str]:
        """The added tokens in a text, and what is between them: the words that are not ASCII, and the longest texts
        that are, which may be empty."""
        parts = [text]
        for cut in self._cuts:  # every second part is an added token, before and after
            parts = [piece for i, part in enumerate(parts) for piece in ([part] if i % 2 else cut.split(part))]
        if text.isascii():
            return parts
        pieces = []
        for part in parts:
            if part.isascii() or part in self._added:
                pieces.append(part)
                continue
            for is_ascii, group in groupby(_BETWEEN_WORDS.split(part), str.isascii):
                words = list(group)
                pieces += ["".join(words)] if is_ascii else words
        return pieces

    def _packed(self, pieces: Iterable[str], known: "_Known") -> Iterator[bytes]:
        for piece in pieces:
            if piece in self._added:  # it cannot be a text, of which no added token is left
                yield self._added[piece]
            elif piece.isascii():
                words = self._find_words(piece)
                assert "".join(words) == piece, "the regexes leave no character out"
                yield b"".join(map(known.__getitem__, words))
            else:
                yield known[piece]


class _Known(dict[str, bytes]):
    """Words and pieces of texts, with their ids as bytes. An ASCII word that is not there is tokenised."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._model = tokenizer.model
        self.num_bytes = 0

    def __missing__(self, word: str) -> bytes:
        packed = _packed(token.id for token in self._model.tokenize(word.translate(_BYTE_LEVEL)))
        self._keep(word, packed)
        return packed

    def learn(self, pieces: Iterable[str]) -> None:
        """Take in texts that are not ASCII."""
        pieces = [piece for piece in pieces if piece not in self]  # the tokenizer's threads share them
        encodings = self._tokenizer.encode_batch_fast(pieces, add_special_tokens=False)
        for piece, encoding in zip(pieces, encodings, strict=True):
            self._keep(piece, _packed(encoding.ids))

    def unless_full(self) -> "_Known":
        return self if self.num_bytes < _MAX_KEPT_BYTES else _Known(self._tokenizer)

    def _keep(self, text: str, packed: bytes) -> None:
        self[text] = packed
        self.num_bytes += _ENTRY_BYTES + 4 * len(text) + len(packed)


def _packed(ids: Iterable[int]) -> bytes:
    return array("i", ids).tobytes()


def _state(part: Any) -> Any:
    """The JSON of a part of a tokenizer; None where it has no such part."""
    return None if part is None else json.loads(part.__getstate__())


def _word_pattern(pre_tokenizer: Any) -> str | None:
    """The regex that the tokenizer cuts words by, where it is one of those proven."""
    match pre_tokenizer:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return _GPT2_SPLIT
        case {
            "type": "Sequence",
            "pretokenizers": [first, {"type": "ByteLevel", "add_prefix_space": False, "use_regex": uses_regex}],
        }:
            match first:
                case {"type": "Digits", "individual_digits": True}:
                    return _DIGITS_THEN_GPT2 if uses_regex else None
                case {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}:
                    is_cut = (behavior, invert) in (("Isolated", False), ("Removed", True))
                    return regex if is_cut and regex in _SPLITS and not uses_regex else None
    return None


def _for_ascii(pattern: str) -> str:
    """The same regex for ASCII texts, whose characters have few categories."""

    def replace(match: re.Match[str]) -> str:
        members = re.sub(r"\\p\{(\w+)\}", lambda found: _ASCII_MEMBERS[found[1]], match[0])
        return members if match[0].startswith("[") else f"[{members}]"

    return re.sub(r"\[[^\]]*\]|\\p\{\w+\}", replace, pattern)


def _cut_at(tokens: Iterable[AddedToken], *, is_normalized: bool) -> re.Pattern[str] | None:
    """Cuts a text at the first and longest of those tokens, and keeps them. The tokenizer looks for others later."""
    contents = [token.content for token in tokens if token.normalized is is_normalized]
    longest_first = sorted(contents, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})") if contents else None
