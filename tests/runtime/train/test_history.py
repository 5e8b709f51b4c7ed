"""The losses of the steps that a lost machine has made: kept in checkpoints, told once where they are lacking."""

import math
import shutil

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from ftl.contract import UrlRef  # noqa: E402
from ftl_runtime.checkpoint import lossplot  # noqa: E402
from ftl_runtime.checkpoint.bucket import BucketStore  # noqa: E402
from ftl_runtime.checkpoint.store import Checkpoint  # noqa: E402
from ftl_runtime.train.history import LOSSES_FILE, History  # noqa: E402


def test_losses_are_kept_to_the_last_bit_without_those_that_are_no_numbers(tmp_path):
    told, history = [], History()
    emit = history.hearing(lambda event, data: told.append(event))
    for event, step, loss in [("step", 2, 0.1), ("eval", 2, math.inf), ("step", 1, 3.0), ("eval", 3, 1 / 3)]:
        emit(event, {"step": step, "loss": loss})
    emit("eval", {"step": 4, "rewards": 0.5})
    emit("phase", {"name": "saving"})
    assert told == ["step", "eval", "step", "eval", "eval", "phase"]
    history.save(tmp_path)
    expected = '{"train":[[1,3.0],[2,0.1]],"eval":[[3,0.3333333333333333]]}'
    assert (tmp_path / LOSSES_FILE).read_text() == expected
    (tmp_path / "again").mkdir()
    History.load(tmp_path).save(tmp_path / "again")
    assert (tmp_path / "again" / LOSSES_FILE).read_text() == expected


@pytest.mark.parametrize("content", [None, "", "[]", '{"train": [[1, 2.0]]}', '{"train": [1], "eval": []}'])
def test_checkpoint_without_losses_that_can_be_read_has_none(tmp_path, content):
    if content is not None:
        (tmp_path / LOSSES_FILE).write_text(content)
    History.load(tmp_path).save(tmp_path)
    assert (tmp_path / LOSSES_FILE).read_text() == '{"train":[],"eval":[]}'


def test_run_in_a_fresh_directory_has_the_losses_of_all_its_steps(make_attempt, tmp_path):
    """Stopped, gone on in the same directory; then, with nothing but what a store has, in a fresh one, twice."""
    straight, lost = make_attempt("straight"), make_attempt("lost")
    straight.train()
    lost.train(stop_at=5)
    lost.train(stop_at=7)
    assert lost.events("history") == []
    ref = UrlRef(url=f"file://{tmp_path}/bucket")
    bucket = BucketStore(ref, "tiny")
    bucket.claim("2-a")
    bucket.put(Checkpoint(7, lost.run / "checkpoints" / "checkpoint-7"), [], lambda done, total: None)
    shutil.rmtree(lost.run)
    lost.spec["stores"] = (ref,)
    lost.train(stop_at=9)
    lost.train()
    [told] = lost.events("history")
    assert [step for step, _ in told["data"]["train"]] == [1, 2, 3, 4, 5, 6, 7]
    assert [step for step, _ in told["data"]["eval"]] == [0, 3, 6]
    names = [event["event"] for event in lost.events()]
    assert names.index("resumed") < names.index("history") < names.index("step")
    assert lossplot.losses_of(lost.run / "events.jsonl") == lossplot.losses_of(straight.run / "events.jsonl")
    last = "checkpoints/checkpoint-12/losses.json"
    assert (lost.run / last).read_bytes() == (straight.run / last).read_bytes()
