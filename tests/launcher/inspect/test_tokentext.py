from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from ftl.inspect.tokentext import TokenTexts
from ftl.tokens import TokenizerView


def view_of(tokenizer: Tokenizer, directory: Path) -> TokenizerView:
    tokenizer.save(str(directory / "tokenizer.json"))
    return TokenizerView.load(directory)


@pytest.fixture
def llama2(tmp_path: Path) -> TokenizerView:
    """A tokenizer of the SentencePiece kind: words with their space, bytes for what is in no word."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "\u2581hello", "\u2581you"]
    tokenizer = Tokenizer(models.WordLevel({word: id for id, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("\u2581"), "merged_with_next")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return view_of(tokenizer, tmp_path)


@pytest.mark.parametrize("text", ["plain", "é ☕ 👩‍👩‍👧", "\x00\x7f\n\t", "<s>literal</s>", "日本語"])
def test_byte_level_tokens_are_the_bytes_of_the_text(view: TokenizerView, text: str) -> None:
    ids = view.tokenizer.encode(text, add_special_tokens=False).ids
    assert b"".join(TokenTexts(view).pieces(ids)) == text.encode()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text())
def test_any_text_comes_back_from_its_tokens(view: TokenizerView, text: str) -> None:
    ids = view.tokenizer.encode(text, add_special_tokens=False).ids
    assert b"".join(TokenTexts(view).pieces(ids, text)) == text.encode()


def test_token_may_be_a_part_of_a_character(view: TokenizerView) -> None:
    ids = view.tokenizer.encode("☕", add_special_tokens=False).ids
    assert TokenTexts(view).pieces(ids[:2]) == [b"\xe2", b"\x98"]


def test_space_of_the_tokenizer_is_left_out_where_the_text_has_none(llama2: TokenizerView) -> None:
    ids = [1, *llama2.tokenizer.encode("hello you", add_special_tokens=False).ids, 2]
    assert TokenTexts(llama2).pieces(ids, "hello you") == [b"<s>", b"hello", b" you", b"</s>"]


def test_space_of_the_text_is_kept(llama2: TokenizerView) -> None:
    ids = llama2.tokenizer.encode("hello you", add_special_tokens=False).ids
    assert b"".join(TokenTexts(llama2).pieces(ids, " hello you")) == b" hello you"


def test_bytes_of_a_word_that_is_not_in_the_vocabulary(llama2: TokenizerView) -> None:
    assert TokenTexts(llama2).pieces([3 + 0xC3, 3 + 0xA9]) == [b"\xc3", b"\xa9"]


def test_id_that_is_no_token_is_named(view: TokenizerView) -> None:
    assert TokenTexts(view).pieces([9999]) == [b"<no token 9999>"]
