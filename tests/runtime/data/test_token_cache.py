import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from ftl.formats.example import Example, Segment, TokenRow
from ftl.tokens import TokenizerView
from ftl_runtime.data.cache import TokenFile, cached_tokens, token_key

EXAMPLES = [Example((Segment("q", False), Segment(text, True))) for text in ("a", "", "ccc")]

EXAMPLE_WITHOUT_TEXT = Example((Segment("", True),))


def build(cache_dir: Path, view: TokenizerView) -> TokenFile:
    return cached_tokens(cache_dir, "key", lambda: iter(EXAMPLES), view)


def never() -> Iterator[Example]:
    raise AssertionError("the examples were read again")


def check(file: TokenFile) -> None:
    # <s> q | a </s>, then <s> q, then <s> q | c c c </s>
    assert file.offsets.tolist() == [0, 4, 6, 12]
    assert file.mask.tolist() == [0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1]
    assert file.num_trained.tolist() == [2, 0, 4]
    assert file.tokens[[0, 3, 4, 6, 11]].tolist() == [256, 257, 256, 256, 257]
    assert (file.may_split, file.trains_eos) == (False, True)


def test_tokens_are_kept_uncut_with_their_mask(tmp_path: Path, byte_view: TokenizerView) -> None:
    check(build(tmp_path, byte_view))


def test_second_call_reads_no_example(tmp_path: Path, byte_view: TokenizerView) -> None:
    build(tmp_path, byte_view)
    check(cached_tokens(tmp_path, "key", never, byte_view))


@pytest.mark.parametrize("name", ["tokens.bin", "mask.bin", "offsets.npy", "manifest.json"])
@pytest.mark.parametrize("harm", ["removed", "cut"])
def test_damaged_entry_is_built_again(tmp_path: Path, byte_view: TokenizerView, name: str, harm: str) -> None:
    path = build(tmp_path, byte_view).directory / name
    if harm == "removed":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    check(build(tmp_path, byte_view))
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_failed_build_leaves_nothing(tmp_path: Path, byte_view: TokenizerView) -> None:
    with pytest.raises(AssertionError):
        cached_tokens(tmp_path, "key", never, byte_view)
    assert list(tmp_path.iterdir()) == []


def test_loser_of_a_race_uses_the_winners_entry(tmp_path: Path, byte_view: TokenizerView) -> None:
    def overtaken() -> Iterator[Example]:
        yield EXAMPLES[0]
        build(tmp_path, byte_view)
        yield from EXAMPLES[1:]

    check(cached_tokens(tmp_path, "key", overtaken, byte_view))
    assert [entry.name for entry in tmp_path.iterdir()] == ["key"]


def test_many_builders_at_once_agree(tmp_path: Path, byte_view: TokenizerView) -> None:
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "manifest.json").write_text("{}")  # broken, so all of them want to replace it
    with ThreadPoolExecutor(8) as pool:
        for file in pool.map(lambda _: build(tmp_path, byte_view), range(16)):
            check(file)


def test_token_file_travels_without_its_tokens(tmp_path: Path, byte_view: TokenizerView) -> None:
    file = build(tmp_path, byte_view)
    file.tokens.sum()
    sent = pickle.dumps(file)
    assert len(sent) < 1000
    check(pickle.loads(sent))


def test_rows_that_are_tokens_already_keep_their_labels(tmp_path: Path, byte_view: TokenizerView) -> None:
    rows = [TokenRow((5, 6, 7), (-100, 6, 7))]
    file = cached_tokens(tmp_path, "key", lambda: iter(rows), byte_view)
    assert (file.tokens.tolist(), file.mask.tolist()) == ([5, 6, 7], [0, 1, 1])


def test_dataset_without_a_token_is_an_entry_too(tmp_path: Path, byte_view: TokenizerView) -> None:
    file = cached_tokens(tmp_path, "key", lambda: iter([EXAMPLE_WITHOUT_TEXT]), byte_view)
    assert (len(file), file.tokens.tolist()) == (1, [])


@pytest.mark.parametrize(
    "other",
    [("other rows", {"type": "x"}), ("rows", {"type": "y"})],
    ids=["rows", "recipe"],
)
def test_key_changes_with(byte_view: TokenizerView, other: tuple[str, dict[str, str]]) -> None:
    assert token_key(*other, byte_view) != token_key("rows", {"type": "x"}, byte_view)


def test_key_changes_with_the_tokenizer(byte_view: TokenizerView) -> None:
    assert token_key("rows", {}, replace(byte_view, prefix_ids=())) != token_key("rows", {}, byte_view)
