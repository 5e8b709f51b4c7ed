from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftl.config.data import DataSection
from ftl.errors import ConfigError
from ftl.tokens import MASKED, TokenizerView
from ftl_runtime.data import cache
from ftl_runtime.data.dataset import Splits, TokenRows, build_splits

CHAT = "{% for m in messages %}{{ m.role[0] }}{{ m.content }}{{ eos_token }}{% endfor %}"


class Builder:
    """Calls build_splits with files below `root`, and remembers the warnings."""

    def __init__(self, root: Path, view: TokenizerView) -> None:
        self.root = root
        self.view = view
        self.warnings: list[str] = []

    def __call__(
        self, type: str = "completion", *, files: tuple[str, ...] = ("a.jsonl",), seed: int = 0, **keys: Any
    ) -> Splits:
        datasets = [{"path": name, "type": type} for name in files]
        data = DataSection.model_validate({"datasets": datasets, **keys})
        return build_splits(
            data,
            self.view,
            seed=seed,
            resolve=lambda path: self.root / path,
            cache_dir=self.root / "cache",
            emit=lambda event, fields: self.warnings.append(f"{event}: {fields['message']}"),
        )


@pytest.fixture
def build(tmp_path: Path, byte_view: TokenizerView) -> Builder:
    return Builder(tmp_path, byte_view)


@pytest.fixture
def letters(write_jsonl: Callable[..., Path]) -> None:
    """20 texts, of which number n has n + 3 tokens: <s>, n + 1 letters, </s>."""
    write_jsonl("a.jsonl", [{"text": chr(97 + n) * (n + 1)} for n in range(20)])


def texts(rows: TokenRows, view: TokenizerView) -> list[list[str]]:
    return [[view.tokenizer.decode(document.ids.tolist()) for document in rows[i]] for i in range(len(rows))]


def flat(rows: TokenRows, view: TokenizerView) -> list[str]:
    return [text for row in texts(rows, view) for text in row]


def test_unpacked_row_is_one_example_with_bos_eos_and_mask(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("a.jsonl", [{"instruction": "q", "output": "ab"}])
    (document,) = build("alpaca").train[0]
    a, b = build.view.tokenizer.encode("ab", add_special_tokens=False).ids
    assert document.ids[0] == 256
    assert document.ids[-3:].tolist() == document.labels[-3:].tolist() == [a, b, 257]
    assert set(document.labels[:-3].tolist()) == {MASKED}


def test_completion_longer_than_sequence_len_is_split(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("a.jsonl", [{"text": "abcdefgh"}])  # 10 tokens
    rows = build(sequence_len=4).train
    assert [len(rows[i][0].ids) for i in range(len(rows))] == [4, 4, 2]
    assert flat(rows, build.view) == ["abc", "defg", "h"]
    assert build.warnings == []


def test_last_piece_of_one_token_is_left_out(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("a.jsonl", [{"text": "abcdefg"}])  # 9 tokens
    rows = build(sequence_len=4).train
    assert [len(rows[i][0].ids) for i in range(len(rows))] == [4, 4]


# The prompt with BOS is 142 tokens, so these are 144 and 243.
ALPACA = [{"instruction": "q", "output": "a"}, {"instruction": "q", "output": "b" * 100}]


def test_long_example_is_dropped_and_counted(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("a.jsonl", ALPACA)
    rows = build("alpaca", sequence_len=200).train
    assert [len(rows[i][0].ids) for i in range(len(rows))] == [144]
    (warning,) = build.warnings
    assert warning.startswith("warning: datasets: 1 left out of 2 examples: 1 have more than sequence_len = 200 tokens")


def test_long_example_is_cut_where_the_config_says_so(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("a.jsonl", ALPACA)
    rows = build("alpaca", sequence_len=200, excess_length="truncate").train
    assert sorted(len(rows[i][0].ids) for i in range(len(rows))) == [144, 200]
    assert build.warnings == []


def test_example_whose_answer_is_cut_off_is_reported(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("a.jsonl", [*ALPACA, {"instruction": "q" * 100, "output": "a"}])
    assert len(build("alpaca", sequence_len=200, excess_length="truncate").train) == 3
    assert "nothing is trained in 1 of 3 examples" in build.warnings[0]


def test_packed_rows_hold_every_document_once(build: Builder, letters: None) -> None:
    packed = build(sequence_len=32, sample_packing=True).train
    assert sorted(flat(packed, build.view)) == sorted(chr(97 + n) * (n + 1) for n in range(20))
    assert len(packed) < 20
    assert packed.num_tokens == sum(n + 3 for n in range(20)) == 250
    assert all(sum(len(document.ids) for document in packed[i]) <= 32 for i in range(len(packed)))


@pytest.mark.parametrize(("val_set_size", "num_eval"), [(0.1, 2), (0.01, 1), (5, 5)])
def test_evaluation_split_takes_a_share_or_a_number(
    build: Builder, letters: None, val_set_size: float, num_eval: int
) -> None:
    splits = build(sequence_len=64, val_set_size=val_set_size)
    assert splits.eval is not None
    assert (len(splits.train), len(splits.eval)) == (20 - num_eval, num_eval)
    assert set(flat(splits.train, build.view)).isdisjoint(flat(splits.eval, build.view))


def test_split_depends_on_the_seed_alone(build: Builder, letters: None) -> None:
    def held_out(**keys: Any) -> list[str]:
        splits = build(sequence_len=64, val_set_size=8, **keys)
        assert splits.eval is not None
        return sorted(flat(splits.eval, build.view))

    assert held_out(seed=1) == held_out(seed=1, sample_packing=True) == held_out(seed=1, shuffle=False)
    assert held_out(seed=1) != held_out(seed=2)


def test_pieces_of_one_text_are_never_on_both_sides(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("a.jsonl", [{"text": letter * 30} for letter in "abcdefgh"])
    splits = build(sequence_len=8, val_set_size=3)
    assert splits.eval is not None
    train, held_out = ({text[0] for text in flat(rows, build.view) if text} for rows in (splits.train, splits.eval))
    assert (len(train), len(held_out), train & held_out) == (5, 3, set())


def test_without_shuffle_rows_are_in_file_order(build: Builder, letters: None) -> None:
    rows = build(sequence_len=64, shuffle=False).train
    assert flat(rows, build.view) == [chr(97 + n) * (n + 1) for n in range(20)]


def test_datasets_are_merged_and_mixed_by_seed(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("a.jsonl", [{"text": "a"}] * 20)
    write_jsonl("b.jsonl", [{"text": "b"}] * 20)
    mixed = flat(build(files=("a.jsonl", "b.jsonl")).train, build.view)
    assert sorted(mixed) == ["a"] * 20 + ["b"] * 20
    assert mixed != sorted(mixed)
    assert mixed == flat(build(files=("a.jsonl", "b.jsonl")).train, build.view)


def test_test_datasets_are_evaluated_on(build: Builder, letters: None, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("t.jsonl", [{"text": "test"}])
    splits = build(sequence_len=64, test_datasets=[{"path": "t.jsonl", "type": "completion"}])
    assert splits.eval is not None
    assert (len(splits.train), flat(splits.eval, build.view)) == (20, ["test"])


@pytest.mark.parametrize(("keys", "is_packed"), [({}, True), ({"eval_sample_packing": False}, False)])
def test_evaluation_is_packed_as_training_unless_said(
    build: Builder, letters: None, keys: dict[str, bool], is_packed: bool
) -> None:
    splits = build(sequence_len=64, val_set_size=10, sample_packing=True, **keys)
    assert splits.eval is not None
    assert (len(splits.eval) < 10) == is_packed


def test_other_length_seed_and_packing_tokenise_nothing(
    build: Builder, letters: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(sequence_len=64)
    monkeypatch.setattr(cache, "encode", None)  # whoever tokenises now, crashes
    for keys in ({"sequence_len": 8}, {"seed": 7}, {"sample_packing": True}, {"val_set_size": 0.5}, {"shuffle": False}):
        assert len(build(**{"sequence_len": 64, **keys}).train) > 0


def test_bad_row_in_the_middle_names_file_and_line(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    path = write_jsonl("a.jsonl", [*[{"text": "x"}] * 3, {"text": 5}, {"text": "x"}])
    with pytest.raises(ConfigError) as caught:
        build()
    assert str(caught.value) == f"{path}:4: `text` = 5: must be text"


def test_unreadable_row_names_file_and_line(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    path = write_jsonl("a.jsonl", [{"text": "x"}] * 3)
    path.write_text(path.read_text() + "{")
    with pytest.raises(ConfigError, match=rf"{path}:4: not JSON at column 2"):
        build()


def test_row_that_the_chat_template_refuses_names_file_and_line(
    build: Builder, write_jsonl: Callable[..., Path]
) -> None:
    path = write_jsonl("a.jsonl", [{"messages": [{"role": role, "content": "x"}]} for role in ("user", "system")])
    with pytest.raises(ConfigError, match=rf"{path}:2: the chat template refuses the row: System role not supported"):
        build("chat_template", chat_template="gemma")


@pytest.mark.parametrize(
    ("rows", "keys", "said"),
    [
        ([{"instruction": "q", "output": "a"}], {"sequence_len": 8}, "none usable of 1 examples: 1 have more than"),
        ([{"instruction": "q", "output": ""}] * 2, {}, "nothing is trained in any of 2 examples"),
        ([{"instruction": "q", "output": "a"}], {"val_set_size": 1}, "val_set_size: 1: takes 1 of 1 examples"),
    ],
    ids=["too-long", "no-answers", "all-held-out"],
)
def test_nothing_left_to_train_on_is_refused(
    build: Builder, write_jsonl: Callable[..., Path], rows: list[dict[str, str]], keys: dict[str, Any], said: str
) -> None:
    write_jsonl("a.jsonl", rows)
    with pytest.raises(ConfigError) as caught:
        build("alpaca", **keys)
    assert said in str(caught.value)


def chat_rows(write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("a.jsonl", [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}])


def test_chat_rows_are_masked_by_turn(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    chat_rows(write_jsonl)
    (document,) = build("chat_template", chat_template_jinja=CHAT).train[0]
    # u q </s> a a </s>: the second `a` is the answer
    assert [label != MASKED for label in document.labels.tolist()] == [False, False, False, False, True, True]
    assert build.warnings == []


def test_end_of_turn_that_is_never_trained_is_a_warning(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    chat_rows(write_jsonl)
    build("chat_template", chat_template="chatml")
    (warning,) = build.warnings
    assert "the model will not learn to stop" in warning
    assert "EOS </s>" in warning
