"""Tokens back to the bytes they stand for."""

import json
import re
from collections.abc import Sequence
from typing import Any

from ftl.tokens import TokenizerView

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE = "\u2581"  # what tokenizers of the SentencePiece family write for a space


class TokenTexts:
    """The bytes of each token: together they are the text, also where a token is a part of a character."""

    def __init__(self, view: TokenizerView) -> None:
        self._tokenizer = view.tokenizer
        self._added = {id: token.content for id, token in view.tokenizer.get_added_tokens_decoder().items()}
        decoder = json.loads(view.tokenizer.to_str())["decoder"]
        self._is_byte_level = "ByteLevel" in _types(decoder)

    def pieces(self, ids: Sequence[int], text: str = "") -> list[bytes]:
        """The bytes of each token. `text` is the text they were made of, where there is one.

        A space that the tokenizer put before a word by itself is left out if `text` has none there.
        """
        pieces = [self._piece(id) for id in ids]
        return _without_own_spaces(pieces, text.encode(errors="surrogatepass")) if text else pieces

    def _piece(self, id: int) -> bytes:
        if id in self._added:
            return self._added[id].encode()
        token = self._tokenizer.id_to_token(id)
        if token is None:
            return f"<no token {id}>".encode()
        if self._is_byte_level and all(char in _BYTE_OF for char in token):
            return bytes(_BYTE_OF[char] for char in token)
        byte = _BYTE_TOKEN.fullmatch(token)
        return bytes([int(byte[1], 16)]) if byte else token.replace(_SPACE, " ").encode()


def _without_own_spaces(pieces: Sequence[bytes], text: bytes) -> list[bytes]:
    shown = []
    done = 0
    for piece in pieces:
        is_own_space = piece.startswith(b" ") and not text.startswith(piece, done) and text.startswith(piece[1:], done)
        shown.append(piece[1:] if is_own_space else piece)
        done += len(shown[-1]) if text.startswith(shown[-1], done) else 0  # BOS and EOS may not be in the text
    return shown


def _types(decoder: Any) -> set[str]:  # Any: JSON of tokenizer.json
    if decoder is None:
        return set()
    return {decoder["type"]}.union(*(_types(part) for part in decoder.get("decoders", ())))


def _byte_alphabet() -> dict[str, int]:
    """Byte-level tokenizers write each byte as a printable character. Source: github.com/openai/gpt-2, encoder.py."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()
