"""Resuming from a checkpoint that somebody else has put there: one with code in its pickles, one of another base."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

import torch  # noqa: E402

from ftl.config.model import ModelSection  # noqa: E402
from ftl.errors import ConfigError  # noqa: E402
from ftl_runtime.checkpoint import manifest  # noqa: E402
from ftl_runtime.checkpoint.base import Base, at_commit_of, check_same, noted  # noqa: E402
from ftl_runtime.checkpoint.store import Checkpoint  # noqa: E402

COMMIT, OTHER = "a" * 40, "b" * 40


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Any, ...]:  # Any: as pickle has it
        return os.system, (self._command,)


@pytest.fixture(scope="module")
def stopped(attempt_below, weights, tmp_path_factory):
    """A run that was asked to stop at step 2, and saved it."""
    attempt = attempt_below(tmp_path_factory.mktemp("stopped"), model=weights, adapter={"kind": "lora", "rank": 2})
    attempt.train(stop_at=2)
    return attempt


@pytest.fixture
def again(stopped, tmp_path):
    """A copy of it, to be resumed."""
    shutil.copytree(stopped.directory, tmp_path / "a")
    return type(stopped)(tmp_path / "a", stopped.config, number=1)


def seal(checkpoint: Path) -> None:
    """Give it a manifest that fits what is in it."""
    (checkpoint / "manifest.json").unlink()
    manifest.seal(checkpoint, run_id="tiny", step=2)


def write_plainly(value: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(value))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("optimizer.pt", torch.save),
        ("optimizer.pt", write_plainly),
        ("scheduler.pt", torch.save),
        ("rng_state.pth", torch.save),
    ],
    ids=["optimizer", "optimizer as older ones", "scheduler", "random states"],
)
def test_code_in_a_pickle_of_a_checkpoint_is_not_run(again, tmp_path, name, write):
    checkpoint = again.run / "checkpoints/checkpoint-2"
    assert (checkpoint / name).is_file()
    write(Evil(f"touch {tmp_path}/pwned"), checkpoint / name)
    seal(checkpoint)
    told = "checkpoint-2: holds a pickle that would run code, and is not gone on from; remove it, and find"
    with pytest.raises(ConfigError, match=told):
        again.train()
    assert not (tmp_path / "pwned").exists()
    assert not (again.run / "result.json").exists()


def test_pickle_that_nobody_reads_is_not_read(again, tmp_path):
    checkpoint = again.run / "checkpoints/checkpoint-2"
    torch.save(Evil(f"touch {tmp_path}/pwned"), checkpoint / "training_args.bin")
    seal(checkpoint)
    again.train()
    assert again.events("resumed")[-1]["data"]["step"] == 2
    assert not (tmp_path / "pwned").exists()


def test_checkpoint_of_another_base_is_refused(again, weights, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(weights, other)
    file = other / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")  # one byte of one weight
    again.config = again.config | {"model": {"base": str(other)}}
    with pytest.raises(ConfigError) as refused:
        again.train()
    assert str(refused.value) == (
        "base_model: checkpoint-2 was trained on another base; name that one, or start a run of its own without this "
        "checkpoint"
    )


def checkpoint_of(base: Base, directory: Path) -> Checkpoint:
    directory.mkdir(exist_ok=True)
    base.write(directory)
    return Checkpoint(2, directory)


def test_base_that_was_left_open_is_the_one_of_the_checkpoint(tmp_path):
    resume = checkpoint_of(Base("digest", "org/base", COMMIT), tmp_path / "checkpoint-2")
    assert at_commit_of(ModelSection(base="org/base"), resume).revision == COMMIT
    assert at_commit_of(ModelSection(base="org/base", revision="main"), resume).revision == COMMIT
    assert at_commit_of(ModelSection(base="org/base", revision=OTHER), resume).revision == OTHER
    assert at_commit_of(ModelSection(base="org/else"), resume).revision is None
    assert at_commit_of(ModelSection(base="org/base"), None).revision is None


def test_other_commit_is_refused_where_its_weights_are_others(tmp_path):
    resume = checkpoint_of(Base("digest", "org/base", COMMIT), tmp_path / "checkpoint-2")
    check_same(Base("digest", "org/base", OTHER), resume)  # only the card has changed
    check_same(Base("digest"), resume)  # a copy of it in a directory
    told = f"trained on another base, org/base at commit {COMMIT}; write `model_revision: {COMMIT}`, or start"
    with pytest.raises(ConfigError, match=told):
        check_same(Base("another", "org/base", OTHER), resume)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weights": "x"}'])
def test_checkpoint_that_says_nothing_of_its_base_is_taken(tmp_path, content):
    (tmp_path / "base.json").write_text(content)
    assert noted(tmp_path) is None
    check_same(Base("digest"), Checkpoint(2, tmp_path))


def test_identity_of_a_large_base_reads_little_of_it(tmp_path):
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(1 << 40)  # a TiB of nothing, which takes no room
    (tmp_path / "tokenizer.json").write_text("{}")
    first = Base.of(tmp_path, repo=None, commit=None)
    (tmp_path / "tokenizer.json").write_text("{ }")
    assert Base.of(tmp_path, repo=None, commit=None) == first
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.seek((1 << 40) - 1)
        file.write(b"\1")
    assert Base.of(tmp_path, repo=None, commit=None) != first


def test_note_names_no_place(again, weights):
    told = json.loads((again.run / "checkpoints/checkpoint-2/base.json").read_text())
    assert (told["repo"], told["commit"]) == (None, None)
    assert len(told["weights"]) == 64
