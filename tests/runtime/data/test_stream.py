"""Streams: every text once a pass, nothing lost, and the same rows from any mark on."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ftl.config.data import DataSection
from ftl.errors import ConfigError
from ftl.sources import open_source
from ftl.tokens import TokenizerView
from ftl_runtime.data.dataset import DocumentRow
from ftl_runtime.data.stream import Mark, Stream, open_stream

NUM_ROWS = 10_000
DEFAULTS = {"sequence_len": 16, "pretrain_multipack_buffer_size": 50}


class Opener:
    """Calls open_stream with files below `root`, and remembers the warnings."""

    def __init__(self, root: Path, view: TokenizerView) -> None:
        self.root = root
        self.view = view
        self.warnings: list[str] = []

    def __call__(
        self, *datasets: dict[str, Any], seed: int = 0, start: Mark | None = None, num_rows: int = NUM_ROWS, **keys: Any
    ) -> Stream:
        given = [{"type": "pretrain", **dataset} for dataset in datasets or ({"path": "a.jsonl"},)]
        data = DataSection.model_validate({**DEFAULTS, "pretraining_dataset": given, **keys})
        return open_stream(
            data,
            self.view,
            seed=seed,
            open=lambda dataset: open_source(dataset, lambda path: self.root / path, seed=seed, download_dir=None),
            num_rows=num_rows,
            start=start,
            emit=lambda event, fields: self.warnings.append(fields["message"]) if event == "warning" else None,
        )


@pytest.fixture
def stream(tmp_path: Path, byte_view: TokenizerView, write_jsonl: Callable[..., Path]) -> Opener:
    """Over a.jsonl, which holds 50 texts: number n is a letter n + 1 times, so it has n + 3 tokens."""
    write_jsonl("a.jsonl", [{"text": chr(48 + n) * (n + 1)} for n in range(50)])
    return Opener(tmp_path, byte_view)


def take(stream: Stream, start: int, stop: int) -> list[DocumentRow]:
    """Rows as a training of batches of three takes them."""
    rows: list[DocumentRow] = []
    for first in range(start, stop, 3):
        batch = range(first, min(first + 3, stop))
        stream.costs(batch)
        rows += [stream[row] for row in batch]
    return rows


def listed(rows: list[DocumentRow]) -> list[list[tuple[list[int], list[int]]]]:
    return [[(document.ids.tolist(), document.labels.tolist()) for document in row] for row in rows]


def text(rows: list[DocumentRow], view: TokenizerView) -> list[str]:
    return [view.tokenizer.decode(document.ids.tolist()) for row in rows for document in row]


PASS = 15 * 1 + 16 * 2 + 16 * 3 + 3 * 4
"""Documents of one pass over a.jsonl: texts of up to 17 tokens give one (a last token alone predicts nothing and is
left out), of 18 to 33 two, of 34 to 49 three, and the three longest four."""


def test_every_token_is_read_once_a_pass(stream: Opener) -> None:
    rows = take(stream(), 0, PASS)
    # <s> 1 to 50 letters </s>; 17, 33 and 49 tokens leave one over, which predicts nothing
    assert sum(len(document.ids) for row in rows for document in row) == sum(n + 3 for n in range(50)) - 3
    assert sum(document.ids[0] == 256 for row in rows for document in row) == 50
    assert sum(document.ids[-1] == 257 for row in rows for document in row) == 47
    assert all((document.ids == document.labels).all() for row in rows for document in row)


def test_text_that_is_too_long_is_split_without_loss(stream: Opener) -> None:
    rows = take(stream(shuffle=False), 0, PASS)
    assert text(rows, stream.view)[-4:] == ["a" * 15, "a" * 16, "a" * 16, "a" * 3]


def test_concatenation_fills_rows_and_keeps_texts_apart(stream: Opener) -> None:
    filled = stream(pretraining_sample_concatenation=True, shuffle=False)
    rows = take(filled, 0, 90)
    lengths = [sum(len(document.ids) for document in row) for row in rows]
    assert np.mean(lengths) / 16 > 0.98
    assert max(len(row) for row in rows) > 1
    assert max(lengths) <= 16


def test_without_document_attention_a_row_is_one_document(stream: Opener) -> None:
    keys = {"pretraining_sample_concatenation": True, "shuffle": False}
    apart, joined = take(stream(**keys), 0, 30), take(stream(pretrain_multipack_attn=False, **keys), 0, 30)
    assert {len(row) for row in joined} == {1}
    for several, (one,) in zip(apart, joined, strict=True):
        assert np.concatenate([document.ids for document in several]).tolist() == one.ids.tolist()


@pytest.mark.parametrize("keys", [{}, {"pretraining_sample_concatenation": True}], ids=["one-a-row", "filled"])
def test_same_rows_come_from_every_mark_on(stream: Opener, keys: dict[str, Any]) -> None:
    datasets = ({"path": "a.jsonl", "weight": 3}, {"path": "a.jsonl"})
    keys = {**keys, "pretrain_multipack_buffer_size": 7}
    straight = stream(*datasets, **keys)
    expected: list[DocumentRow] = []
    marks = {}
    for row in range(0, 300, 3):
        marks[row] = json.loads(json.dumps(asdict(straight.mark(row))))
        expected += take(straight, row, row + 3)
    for row in (0, 3, 99, 150, 297):
        resumed = stream(*datasets, start=Mark.read(marks[row]), **keys)
        assert listed(take(resumed, row, 300)) == listed(expected[row:])


def test_mark_lies_close_to_its_row(stream: Opener) -> None:
    """So that little is read again: at most a block."""
    running = stream(pretrain_multipack_buffer_size=5)
    take(running, 0, 60)
    mark = running.mark(60)
    assert 40 < mark.row <= 60
    assert mark.places[0] > 20


def test_source_starts_over_with_one_notice(stream: Opener) -> None:
    running = stream(shuffle=False)
    first, second, third = (listed(take(running, PASS * i, PASS * (i + 1))) for i in range(3))
    assert first == second == third
    (warning,) = stream.warnings
    assert "all 50 rows are read; it is read again from its start until max_steps" in warning


def test_skipped_rows_are_left_out_of_every_pass(stream: Opener) -> None:
    running = stream({"path": "a.jsonl", "skip": 49}, shuffle=False)
    assert text(take(running, 0, 8), stream.view) == ["a" * 15, "a" * 16, "a" * 16, "a" * 3] * 2


def test_sources_are_drawn_by_weight(stream: Opener, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("x.jsonl", [{"text": "x"}])
    write_jsonl("y.jsonl", [{"text": "y"}])
    drawn = text(take(stream({"path": "x.jsonl", "weight": 3}, {"path": "y.jsonl"}), 0, 4000), stream.view)
    assert drawn.count("x") + drawn.count("y") == 4000
    assert drawn.count("x") == pytest.approx(3000, abs=120)


def test_rows_depend_on_the_seed(stream: Opener) -> None:
    assert listed(take(stream(seed=1), 0, 30)) == listed(take(stream(seed=1), 0, 30))
    assert listed(take(stream(seed=1), 0, 30)) != listed(take(stream(seed=2), 0, 30))


def test_column_of_the_text_is_named(stream: Opener, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("b.jsonl", [{"body": "hello"}])
    assert text(take(stream({"path": "b.jsonl", "text_column": "body"}), 0, 1), stream.view) == ["hello"]
    assert text(take(stream({"path": "b.jsonl", "type": "completion", "field": "body"}), 0, 1), stream.view) == [
        "hello"
    ]


def test_broken_row_is_named_when_it_is_reached(stream: Opener, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("b.jsonl", [{"text": "fine"}, {"text": 5}])
    running = stream({"path": "b.jsonl"}, pretrain_multipack_buffer_size=1)
    take(running, 0, 1)
    with pytest.raises(ConfigError, match=r"b\.jsonl:2: `text` = 5"):
        take(running, 1, 2)


def test_texts_without_a_token_to_train_are_refused(stream: Opener, write_jsonl: Callable[..., Path]) -> None:
    write_jsonl("b.jsonl", [{"text": ""}] * 3)
    with pytest.raises(ConfigError, match="no text has 2 tokens or more"):
        take(stream({"path": "b.jsonl"}), 0, 1)


def test_mark_of_other_data_is_refused(stream: Opener, write_jsonl: Callable[..., Path]) -> None:
    mark = stream().mark(0)
    write_jsonl("a.jsonl", [{"text": "other"}])
    with pytest.raises(ConfigError, match="is not the data that the checkpoint was trained on"):
        stream(start=mark)


def test_row_before_the_mark_is_refused(stream: Opener) -> None:
    first = stream(pretrain_multipack_buffer_size=5)
    first.costs(range(30, 33))
    resumed = stream(start=first.mark(30), pretrain_multipack_buffer_size=5)
    with pytest.raises(ConfigError, match="asks for row 0, and its checkpoint goes on at row"):
        resumed.costs(range(3))


def test_ranks_share_each_batch_of_the_stream(stream: Opener) -> None:
    pytest.importorskip("torch")
    from ftl_runtime.train.batches import RankShare

    keys = {"pretraining_sample_concatenation": True, "pretrain_multipack_buffer_size": 7}
    alone = stream(**keys)
    shares = [RankShare(stream(**keys), rank, 2) for rank in range(2)]
    for first in range(0, 120, 4):
        batch = range(first, first + 4)
        alone.costs(batch)
        dealt = [share.__getitems__(batch) for share in shares]
        assert [len(rows) for rows in dealt] == [2, 2]
        assert sorted(listed(dealt[0] + dealt[1])) == sorted(listed([alone[row] for row in batch]))
