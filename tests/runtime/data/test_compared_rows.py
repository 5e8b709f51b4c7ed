"""Pairs from file to batch, byte by byte: <s> = 256 in front, one token a letter."""

from pathlib import Path
from typing import Any

import pytest

from ftl.config.data import DataSection
from ftl.errors import ConfigError
from ftl.sources import open_source
from ftl.tokens import MASKED
from ftl_runtime.data.compare import (
    ComparedRow,
    ComparedRows,
    JudgedCollator,
    JudgedRows,
    PairCollator,
    ScoredCollator,
)
from ftl_runtime.data.dataset import Splits, build_splits


@pytest.fixture
def build(tmp_path, byte_view, write_jsonl):
    """build(rows, kind=..., **keys of the data section) -> Splits; `build.warnings` are those of the last call."""

    def start(
        rows: list[dict[str, Any]], *, kind: str = "dpo", type: str | None = None, most: int | None = None, **keys: Any
    ) -> Splits:
        write_jsonl("rows.jsonl", rows)
        events: list[tuple[str, dict[str, Any]]] = []
        splits = build_splits(
            DataSection.model_validate({"datasets": [{"path": "rows.jsonl", "type": type}], "shuffle": False, **keys}),
            byte_view,
            seed=0,
            open=lambda dataset: open_source(dataset, lambda path: Path(tmp_path / path), seed=0, download_dir=None),
            cache_dir=tmp_path / "cache",
            emit=lambda event, fields: events.append((event, fields)),
            kind=kind,
            max_prompt_len=most,
        )
        start.warnings = [fields["message"] for event, fields in events if event == "warning"]
        return splits

    return start


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, str]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def shown(splits: Splits, view) -> list[list[tuple[str, str]]]:
    """Of each row its texts, each as prompt and answer."""
    return [
        [
            tuple(
                view.tokenizer.decode([i for i in part if i != MASKED], skip_special_tokens=False)
                for part in (document.ids[document.labels == MASKED], document.labels)
            )
            for document in splits.train[row]
        ]
        for row in range(len(splits.train))
    ]


ROWS = [pair("ab", "c", "de"), pair("fg", "hi", "j"), pair("kl", "m", "n")]


def test_answers_to_one_prompt_stay_in_one_row(build, byte_view):
    assert shown(build(ROWS), byte_view) == [
        [("<s>ab", "c"), ("<s>ab", "de")],
        [("<s>fg", "hi"), ("<s>fg", "j")],
        [("<s>kl", "m"), ("<s>kl", "n")],
    ]


def test_pairs_are_counted_as_samples(build):
    (use,) = build(ROWS).used
    assert (use.rows, use.samples, use.tokens, use.trained) == (3, 3, 4 + 5 + 5 + 4 + 4 + 4, 3 + 3 + 2)


def test_evaluation_rows_are_whole_pairs(build):
    splits = build(ROWS, val_set_size=1)
    assert (len(splits.train), len(splits.eval)) == (2, 1)
    assert [len(splits.eval[0]), len(splits.train[1])] == [2, 2]


def test_pair_goes_when_either_answer_is_too_long(build, byte_view):
    splits = build([*ROWS, pair("ab", "c", "defgh")], sequence_len=7)
    assert len(splits.train) == 3
    assert splits.used[0].too_long == 1


def test_truncated_pair_keeps_some_of_both_answers(build, byte_view):
    rows = [pair("ab", "cdefg", "h"), pair("abcdef", "g", "h")]
    splits = build(rows, sequence_len=6, excess_length="truncate")
    assert shown(splits, byte_view) == [[("<s>ab", "cde"), ("<s>ab", "h")]]
    assert (splits.used[0].truncated, splits.used[0].too_long) == (1, 1)


def test_same_prompt_with_answers_swapped_is_no_duplicate(build):
    rows = [pair("ab", "c", "d"), pair("ab", "d", "c"), pair("ab", "c", "d")]
    splits = build(rows, exact_deduplication=True)
    assert (len(splits.train), splits.used[0].duplicates) == (2, 1)


def test_long_prompt_keeps_bos_and_its_last_tokens(build, byte_view):
    splits = build([pair("abcdef", "g", "h"), *ROWS], most=4)
    assert shown(splits, byte_view)[:2] == [[("<s>def", "g"), ("<s>def", "h")], [("<s>ab", "c"), ("<s>ab", "de")]]
    assert [warning.partition(": ")[2].partition(": ")[2] for warning in build.warnings] == [
        "1 prompts cut to their last max_prompt_len = 4 tokens"
    ]
    whole = build([pair("abcdef", "g", "h"), *ROWS])
    assert shown(whole, byte_view)[0] == [("<s>abcdef", "g"), ("<s>abcdef", "h")]


def test_pair_that_is_too_long_is_named_with_its_row(build):
    with pytest.raises(ConfigError, match=r"rows.jsonl:4: 9 tokens, more than sequence_len = 7"):
        build([*ROWS, pair("ab", "c", "defghi")], sequence_len=7, excess_length="raise")


def test_batch_holds_the_better_answers_and_then_the_worse_ones(build):
    rows = ComparedRows(build(ROWS).train)
    batch = PairCollator(pad_id=9, sequence_len=8, pad_to_sequence_len=False)([rows[0], rows[1]])
    assert batch["input_ids"].shape == (4, 5)
    assert batch["input_ids"][:, 0].tolist() == [256] * 4
    assert batch["input_ids"][0, 4] == 9
    answered = [[t for t, label in enumerate(row) if label != MASKED] for row in batch["labels"].tolist()]
    assert answered == [[3], [3, 4], [3, 4], [3]]
    assert (batch["first_label"], batch["num_tokens"]) == (3, 4 + 5 + 5 + 4)
    assert "reference" not in batch and "attention_mask" not in batch


def test_batch_is_as_wide_as_the_config_asks(build):
    rows = ComparedRows(build(ROWS).train)
    assert PairCollator(9, sequence_len=8, pad_to_sequence_len=True)([rows[0]])["input_ids"].shape == (2, 8)


def test_known_log_probabilities_come_in_the_order_of_the_rows(build):
    rows = build(ROWS).train
    batch = PairCollator(9, 8, False)([ComparedRow(rows[0], [1, 2]), ComparedRow(rows[1], [3, 4])])
    assert batch["reference"].tolist() == [1, 3, 2, 4]


JUDGED = [
    {"prompt": "ab", "completion": "c", "label": True},
    {"prompt": "de", "completion": "fghi", "label": False},
    {"prompt": "j", "completion": "kl", "label": True},
]


def test_judged_answer_comes_with_its_verdict_and_the_answer_before_it(build, byte_view):
    rows = JudgedRows(build(JUDGED, kind="kto", val_set_size=0).train, sequence_len=6)
    texts = [[byte_view.tokenizer.decode(document.ids) for document in rows[r].documents] for r in range(3)]
    assert texts == [["abc", "abkl"], ["defghi", "dec"], ["jkl", "jfghi"]]
    assert [rows[r].is_good for r in range(3)] == [True, False, True]
    assert rows[2].documents[1].labels.tolist()[:2] == [MASKED, MASKED]


def test_stranger_fits_into_a_row(build):
    rows = JudgedRows(build(JUDGED, kind="kto").train, sequence_len=5)
    assert len(rows[2].documents[1].ids) == 5


def test_batch_of_judged_answers_has_that_of_strangers_in_it(build):
    rows = JudgedRows(build(JUDGED, kind="kto").train, sequence_len=8)
    batch = JudgedCollator(9, 8, False)([rows[0], rows[1]])
    assert batch["is_good"].tolist() == [True, False]
    assert batch["input_ids"].shape == (2, 7)
    assert batch["stranger"]["input_ids"].shape == (2, 5)
    assert batch["num_tokens"] == 4 + 7


def test_verdict_makes_two_answers_different(build):
    rows = [JUDGED[0], {**JUDGED[0], "label": False}, JUDGED[0]]
    assert build(rows, kind="kto", exact_deduplication=True).used[0].duplicates == 1


def test_steps_carry_classes_and_texts_their_length(build):
    rows = [{"prompt": "ab", "completions": ["c", "de"], "labels": [False, True]}]
    train = build(rows, kind="prm", type="stepwise_supervised").train
    batch = ScoredCollator(9, 12, pad_to_sequence_len=True)([ComparedRows(train)[0]])
    assert batch["labels"].tolist() == [[MASKED] * 4 + [0] + [MASKED] * 2 + [1] + [MASKED] * 4]
    assert batch["attention_mask"].tolist() == [[1] * 8 + [0] * 4]


def test_scored_texts_are_used_though_nothing_in_them_is_a_label(build):
    splits = build(
        [{"question": "a", "chosen": "b", "rejected": "c"}], kind="reward", type="bradley_terry.chatml.intel"
    )
    assert (splits.used[0].samples, splits.used[0].untrained) == (1, 0)
