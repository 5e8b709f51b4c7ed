"""Added tokens under other texts. The byte tokenizer has added tokens 256 to 261: <s>, </s>, <pad>, ..., <|eot_id|>."""

from pathlib import Path

import pytest
from byte_tokenizer import save_byte_tokenizer
from tokenizers import Tokenizer, models

from ftl.errors import ConfigError
from ftl.tokens import TokenizerView
from ftl.tokens.rename import rename


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_byte_tokenizer(tmp_path_factory.mktemp("bytes"))


def ids(view: TokenizerView, text: str) -> list[int]:
    found: list[int] = view.tokenizer.encode(text, add_special_tokens=False).ids
    return found


def test_renamed_token_is_found_by_its_text_and_no_longer_by_the_old_one(directory: Path) -> None:
    view = TokenizerView.load(directory, renamed={261: "<tool>"})
    assert ids(view, "a<tool>b") == [*ids(view, "a"), 261, *ids(view, "b")]
    assert len(ids(view, "<|eot_id|>")) == len("<|eot_id|>")


def test_roles_and_what_is_put_in_front_follow_the_token(directory: Path) -> None:
    view = TokenizerView.load(directory, renamed={256: "<begin>", 258: "<fill>"})
    assert (view.bos_token, view.pad_token, view.eos_token) == ("<begin>", "<fill>", "</s>")
    assert (view.prefix_ids, view.pad_id) == ((256,), 258)


def test_tokens_are_the_same_files_on_disk_as_before(directory: Path) -> None:
    before = (directory / "tokenizer.json").read_bytes()
    TokenizerView.load(directory, renamed={261: "<tool>"})
    assert (directory / "tokenizer.json").read_bytes() == before


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ({97: "<x>"}, "added_tokens_overrides.97: <x>: is no added token of the tokenizer, which has 256 to 261"),
        ({261: "</s>"}, "added_tokens_overrides.261: </s>: is token 257 already"),
        ({261: "<x>", 260: "<x>"}, "added_tokens_overrides.260: <x>: is token 261 already"),
        ({261: "!"}, "added_tokens_overrides.261: !: is token 0 already"),
    ],
    ids=["id of the model", "taken", "twice", "text of the model"],
)
def test_impossible_renaming_is_refused(directory: Path, texts: dict[int, str], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TokenizerView.load(directory, renamed=texts)
    assert str(caught.value).startswith(sentence)


def test_directory_without_tokenizer_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no tokenizer\.json, which names the added tokens"):
        TokenizerView.load(tmp_path, renamed={1: "<x>"})


def test_token_that_the_model_has_too_is_renamed_in_both(tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), ("<spare>", 0.0), ("a", -1.0)], 0, False))
    tokenizer.add_special_tokens(["<spare>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    view = TokenizerView.load(tmp_path, renamed={1: "<new>"})
    assert ids(view, "a<new>a") == [2, 1, 2]


def test_unknown_token_keeps_its_work_under_its_other_name() -> None:
    model = {"type": "WordLevel", "vocab": {"<unk>": 0, "a": 1}, "unk_token": "<unk>"}
    tokenizer, _ = rename({"model": model, "added_tokens": [{"id": 0, "content": "<unk>"}]}, {0: "<what>"})
    assert tokenizer["model"] == {"type": "WordLevel", "vocab": {"<what>": 0, "a": 1}, "unk_token": "<what>"}
