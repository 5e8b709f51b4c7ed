import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ftl.config.data import DataSection
from ftl.errors import ConfigError
from ftl.sources import open_source
from ftl.tokens import MASKED, TokenizerView
from ftl_runtime.data.dataset import Splits, TokenRows, build_splits

CHAT = "{% for m in messages %}{{ m.role[0] }}{{ m.content }}{{ eos_token }}{% endfor %}"


class Builder:
    """Calls build_splits with files below `root`, and remembers the events."""

    def __init__(self, root: Path, view: TokenizerView) -> None:
        self.root = root
        self.view = view
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(
        self, type: str | None = "completion", *, files: tuple[str, ...] = ("a.jsonl",), seed: int = 0, **keys: Any
    ) -> Splits:
        datasets = [{"path": name, "type": type} for name in files]
        data = DataSection.model_validate({"datasets": datasets, **keys})
        return build_splits(
            data,
            self.view,
            seed=seed,
            open=lambda dataset: open_source(dataset, self.find, seed=seed, download_dir=None),
            cache_dir=self.root / "cache",
            emit=lambda event, fields: self.events.append((event, fields)),
        )

    def find(self, path: str) -> Path | None:
        return self.root / path if (self.root / path).exists() else None

    @property
    def warnings(self) -> list[str]:
        return [fields["message"] for event, fields in self.events if event == "warning"]

    @property
    def used(self) -> list[dict[str, Any]]:
        """The datasets of the newest data event."""
        return [fields["datasets"] for event, fields in self.events if event == "data"][-1]


@pytest.fixture
def build(tmp_path: Path, byte_view: TokenizerView) -> Builder:
    return Builder(tmp_path, byte_view)


@pytest.fixture
def letters(write_jsonl: Callable[..., Path]) -> None:
    """20 texts, of which number n has n + 3 tokens: <s>, n + 1 letters, </s>."""
    write_jsonl("a.jsonl", [{"text": chr(97 + n) * (n + 1)} for n in range(20)])


def texts(rows: TokenRows | None, view: TokenizerView) -> list[list[str]]:
    assert rows is not None
    return [[view.tokenizer.decode(document.ids.tolist()) for document in rows[i]] for i in range(len(rows))]


def flat(rows: TokenRows | None, view: TokenizerView) -> list[str]:
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
    assert ": of 2 rows 1 left out with more than sequence_len = 200 tokens; raise sequence_len" in warning
    assert (build.used[0]["rows"], build.used[0]["samples"], build.used[0]["too_long"]) == (2, 1, 1)


def test_long_example_is_cut_where_the_config_says_so(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("a.jsonl", ALPACA)
    rows = build("alpaca", sequence_len=200, excess_length="truncate").train
    assert sorted(len(rows[i][0].ids) for i in range(len(rows))) == [144, 200]
    assert build.used[0]["truncated"] == 1
    assert ": of 2 rows 1 cut to sequence_len = 200 tokens" in build.warnings[0]


def test_long_example_is_split_where_the_config_says_so(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("a.jsonl", ALPACA)
    rows = build("alpaca", sequence_len=200, excess_length="split").train
    assert rows is not None
    assert sorted(len(rows[i][0].ids) for i in range(len(rows))) == [43, 144, 200]
    assert (build.used[0]["split"], build.used[0]["tokens"], build.used[0]["trained"]) == (1, 387, 103)


def test_long_example_is_refused_with_its_place_where_the_config_says_so(
    build: Builder, write_jsonl: Callable[..., Path]
) -> None:
    write_jsonl("a.jsonl", ALPACA)
    with pytest.raises(ConfigError, match=r"a\.jsonl:2: 243 tokens, more than sequence_len = 200"):
        build("alpaca", sequence_len=200, excess_length="raise")


def test_short_example_is_left_out_and_counted(build: Builder, letters: None) -> None:
    rows = build(sequence_len=64, min_sample_len=10).train
    assert rows is not None
    assert (len(rows), build.used[0]["too_short"]) == (13, 7)


def test_duplicates_are_left_out_and_counted(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("a.jsonl", [{"text": text} for text in ("one", "two", "one")])
    write_jsonl("b.jsonl", [{"text": text} for text in ("two", "three")])
    kept = flat(build(files=("a.jsonl", "b.jsonl"), exact_deduplication=True, shuffle=False).train, build.view)
    assert kept == ["one", "two", "three"]
    assert [use["duplicates"] for use in build.used] == [1, 1]


def test_same_tokens_with_another_mask_are_no_duplicate(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("a.jsonl", [{"instruction": "q", "output": "a"}])
    both = {"datasets": [{"path": "a.jsonl", "type": "alpaca"}, {"path": "a.jsonl", "type": "alpaca"}]}
    assert len(build(exact_deduplication=True, **both).train or ()) == 1
    segments = [{"segments": [{"label": label, "text": "q"}, {"label": True, "text": "a"}]} for label in (True, False)]
    write_jsonl("b.jsonl", segments)
    assert len(build("input_output", files=("b.jsonl",), exact_deduplication=True).train or ()) == 2


def test_what_is_evaluated_on_is_not_trained(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("a.jsonl", [{"text": text} for text in ("one", "two", "three")])
    write_jsonl("t.jsonl", [{"text": "two"}, {"text": "two"}])
    tests = [{"path": "t.jsonl", "type": "completion"}]
    splits = build(test_datasets=tests, exact_deduplication=True, shuffle=False)
    assert flat(splits.train, build.view) == ["one", "three"]
    assert flat(splits.eval, build.view) == ["two"]
    assert [use["duplicates"] for use in build.used] == [1, 1]


def test_parts_of_the_merged_rows_are_disjoint_and_whole(build: Builder, letters: None) -> None:
    parts = [set(flat(build(sequence_len=64, shard_num=3, shard_idx=i).train, build.view)) for i in range(3)]
    assert sorted(len(part) for part in parts) == [6, 7, 7]
    assert len(set.union(*parts)) == 20


def test_rows_that_are_tokens_already_are_taken_as_they_are(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    row = {"input_ids": [5, 6, 7], "attention_mask": [1, 1, 1], "labels": [-100, 6, 7]}
    write_jsonl("a.jsonl", [row])
    train = build(None).train
    assert train is not None
    (document,) = train[0]
    assert (document.ids.tolist(), document.labels.tolist()) == ([5, 6, 7], [-100, 6, 7])


def test_used_datasets_are_named_by_their_content(build: Builder, letters: None, tmp_path: Path) -> None:
    (first,) = build(sequence_len=64).used
    shutil.copy(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    (second,) = build(sequence_len=64, files=("b.jsonl",)).used
    assert first.identity == second.identity
    assert (first.was_cached, second.was_cached) == (False, True)
    assert (first.key, first.rows, first.samples, first.tokens) == ("datasets.0", 20, 20, 250)


def test_costs_are_the_squares_of_document_lengths(build: Builder, letters: None) -> None:
    packed = build(sequence_len=32, sample_packing=True).train
    assert packed is not None
    for row, cost in enumerate(packed.costs(range(len(packed)))):
        assert cost == sum(len(document.ids) ** 2 for document in packed[row])


def test_example_whose_answer_is_cut_off_is_reported(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("a.jsonl", [*ALPACA, {"instruction": "q" * 100, "output": "a"}])
    assert len(build("alpaca", sequence_len=200, excess_length="truncate").train) == 3
    assert "1 used with nothing in them that is trained; check the columns" in build.warnings[0]


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


def test_curriculum_keeps_the_order_and_packs_neighbours(build: Builder, letters: None) -> None:
    rows = build(sequence_len=64, keep_order=True, sample_packing=True, pack_in_order=True).train
    assert flat(rows, build.view) == [chr(97 + n) * (n + 1) for n in range(20)]
    assert rows is not None and len(rows) < 20


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


def test_bad_row_in_the_middle_names_file_and_line(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("a.jsonl", [*[{"text": "x"}] * 3, {"text": 5}, {"text": "x"}])
    with pytest.raises(ConfigError, match=r"/a\.jsonl:4: `text` = 5: must be text$"):
        build()


def test_first_broken_rows_are_named_and_the_others_counted(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("a.jsonl", [{"text": "x"}, *[{"text": 5}] * 7])
    with pytest.raises(ConfigError) as caught:
        build()
    said = str(caught.value).splitlines()
    assert [line.partition(": ")[0].rpartition("/")[2] for line in said[:5]] == [f"a.jsonl:{n}" for n in range(2, 7)]
    assert said[5:] == ["datasets.0: 2 more rows are broken"]


def test_unreadable_row_names_file_and_line(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    path = write_jsonl("a.jsonl", [{"text": "x"}] * 3)
    path.write_text(path.read_text() + "{")
    with pytest.raises(ConfigError, match=r"a\.jsonl:4: not JSON at column 2"):
        build()


def test_row_that_the_chat_template_refuses_names_file_and_line(
    build: Builder, write_jsonl: Callable[..., Path]
) -> None:
    write_jsonl("a.jsonl", [{"messages": [{"role": role, "content": "x"}]} for role in ("user", "system")])
    with pytest.raises(ConfigError, match=r"a\.jsonl:2: the chat template refuses the row: System role not supported"):
        build("chat_template", chat_template="gemma")


@pytest.mark.parametrize(
    ("rows", "keys", "said"),
    [
        ([{"instruction": "q", "output": "a"}], {"sequence_len": 8}, "none usable of 1 samples: 1 have more than"),
        ([{"instruction": "q", "output": ""}] * 2, {}, "nothing is trained in any of 2 samples"),
        ([{"instruction": "q", "output": "a"}], {"val_set_size": 1}, "val_set_size: 1: takes 1 of 1 samples"),
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


def test_answers_in_the_evaluation_rows_alone_are_refused(build: Builder, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("a.jsonl", [{"instruction": "q", "output": ""}])
    write_jsonl("b.jsonl", [{"instruction": "q", "output": "a"}])
    with pytest.raises(ConfigError, match=r"datasets\.0: nothing is trained in any of 1 samples"):
        build("alpaca", test_datasets=[{"path": "b.jsonl", "type": "alpaca"}])


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
