"""Checkpoints that are written while training goes on: the bytes of their step, one at a time, no failure is lost."""

import errno
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from ftl.errors import StorageError, TrainingError
from ftl_runtime.checkpoint.volume import VolumeStore, storage_errors

pytestmark = pytest.mark.torch


class Gate(VolumeStore):
    """A store whose commits wait for `open`, and fail where told."""

    def __init__(self, root):
        super().__init__(root, "tiny", lambda name, data: None)
        self.open, self.failure = threading.Event(), None

    def commit(self, stage, step):
        assert self.open.wait(10)
        with storage_errors(stage.parent):
            if self.failure is not None:
                raise self.failure
        return super().commit(stage, step)


@pytest.fixture
def gate(tmp_path):
    """What a Saver asks of its context."""
    from ftl_runtime.mesh import Mesh

    events, warnings, device = [], [], SimpleNamespace(is_main=True, num_ranks=1)
    return SimpleNamespace(
        store=Gate(tmp_path),
        device=device,
        mesh=Mesh(device),
        emit=lambda name, data: events.append((data["step"], data["state"])),
        events=events,
        warn=warnings.append,
        warnings=warnings,
    )


@pytest.fixture
def state():
    """A training's state: `state.weights` may be changed after it was saved."""
    import torch

    from ftl_runtime.checkpoint.contents import Contents

    @contextmanager
    def of_now(stage):
        contents = Contents()
        contents.add_tensors(stage / "weights", {"w": found.weights})
        yield contents

    found = SimpleNamespace(weights=torch.arange(6.0), of_now=of_now)
    return found


def saver_of(gate, keep=2, *, may_be_behind=True):
    from ftl_runtime.checkpoint.saver import Saver

    return Saver(gate, keep, may_be_behind=may_be_behind)


def stored(checkpoint):
    from safetensors.torch import load_file

    return load_file(checkpoint.path / "weights")["w"].tolist()


def test_state_is_that_of_its_step_and_one_is_under_way_at_a_time(gate, state):
    saver = saver_of(gate, keep=1)
    saver.save(1, state.of_now, None)
    state.weights += 10
    saver.look()
    assert (saver.saved, gate.events) == (None, [])
    threading.Timer(0.05, gate.store.open.set).start()
    saver.save(2, state.of_now, None)  # waits for the first
    state.weights += 10
    assert (saver.saved.step, gate.events) == (1, [(1, "saved"), (1, "verified")])
    assert stored(saver.saved) == [0, 1, 2, 3, 4, 5]
    saver.wait()
    assert (saver.saved.step, gate.events[2:]) == (2, [(2, "saved"), (2, "verified")])
    assert stored(saver.saved) == [10, 11, 12, 13, 14, 15]
    assert [found.name for found in saver.saved.path.parent.iterdir()] == ["checkpoint-2"]


def test_failure_comes_up_at_the_next_look_and_leaves_what_was_verified(gate, state, tmp_path):
    saver = saver_of(gate)
    gate.store.open.set()
    saver.save(1, state.of_now, None)
    saver.wait()
    gate.store.failure = OSError(errno.EROFS, "Read-only file system", str(tmp_path))
    saver.save(2, state.of_now, None)
    with pytest.raises(StorageError, match="cannot be written: Read-only file system"):
        while True:
            saver.look()
    saver.look()  # told once
    assert saver.saved.step == 1
    assert [found.name for found in tmp_path.iterdir()] == ["checkpoint-1"]


def test_file_that_cannot_be_written_is_told_and_leaves_no_stage(gate, state, tmp_path):
    @contextmanager
    def in_the_way(stage):
        with state.of_now(stage) as contents:
            (stage / "weights").mkdir()
            yield contents

    saver = saver_of(gate)
    saver.save(1, in_the_way, None)
    with pytest.raises(Exception, match="Is a directory"):
        saver.wait()
    assert (saver.saved, list(tmp_path.iterdir())) == (None, [])


@pytest.mark.parametrize("error", [None, TrainingError("the loss is nan")], ids=["stopped", "failed"])
def test_end_of_training_waits_for_what_is_under_way(gate, state, error):
    saver = saver_of(gate)

    def train():
        with saver.seen_through():
            saver.save(3, state.of_now, None)
            threading.Timer(0.05, gate.store.open.set).start()
            if error is not None:
                raise error

    if error is None:
        train()
    else:
        with pytest.raises(TrainingError, match="the loss is nan"):
            train()
    assert saver.saved.step == 3
    assert gate.events == [(3, "saved"), (3, "verified")]


def test_failure_while_another_ends_the_training_is_a_warning(gate, state):
    saver = saver_of(gate)
    gate.store.failure = StorageError("the disk is full")
    gate.store.open.set()
    with pytest.raises(TrainingError, match="the loss is nan"), saver.seen_through():
        saver.save(3, state.of_now, None)
        raise TrainingError("the loss is nan")
    assert gate.warnings == ["the disk is full"]


def test_without_room_for_a_copy_the_training_waits_and_says_so_once(gate, state, monkeypatch):
    monkeypatch.setattr("ftl_runtime.checkpoint.saver.free_main_memory", lambda: 25)  # six fp32 values take 24
    saver = saver_of(gate)
    gate.store.open.set()
    for step in (1, 2):
        saver.save(step, state.of_now, None)
        assert saver.saved.step == step
    (warning,) = gate.warnings
    assert warning.startswith("training waits for each save")


def test_where_a_listener_must_be_told_at_once_the_training_waits(gate, state):
    saver = saver_of(gate, may_be_behind=False)
    gate.store.open.set()
    saver.save(1, state.of_now, None)
    assert (saver.saved.step, gate.events, gate.warnings) == (1, [(1, "saved"), (1, "verified")], [])


def test_copies_give_the_bytes_that_the_tensors_gave(tmp_path):
    """Shared memory, views, numbers of all kinds and states in few bits, as pickles and as safetensors."""
    import torch
    from torchao.optim.subclass_8bit import OptimState8bit

    from ftl_runtime.checkpoint.buffers import Buffers
    from ftl_runtime.checkpoint.contents import Contents

    whole = torch.randn(4, 6)
    one = torch.tensor(3.0)
    paged = torch.randn(5)
    paged.is_paged = True
    betas = (0.9, 0.95)
    value = {
        "state": {
            0: {"m": whole, "v": whole[1:3].t(), "step": one, "again": one},
            1: {"m": whole.view(-1), "empty": torch.empty(0), "paged": paged, "few": OptimState8bit.zeros((256,))},
        },
        "param_groups": [{"lr": 1e-3, "betas": betas, "params": [0, 1]}, {"betas": betas, "t": (one, "a"), "n": None}],
    }
    tensors = {"a": whole, "b": torch.randn(3, 2).t().contiguous(), "c": torch.arange(5, dtype=torch.bfloat16)}

    def contents_in(name):
        (tmp_path / name).mkdir()
        contents = Contents()
        contents.add_tensors(tmp_path / name / "model.safetensors", tensors, {"format": "pt"})
        contents.add_pickle(tmp_path / name / "optimizer.pt", value)
        return contents

    buffers = Buffers()
    contents_in("before").copied(buffers)
    again = contents_in("behind").copied(buffers)
    # whole, one, the rest of tensors, paged, codes + scale + qmap of the states in 8 bits
    assert contents_in("sizes").num_bytes() == 96 + 4 + 24 + 10 + 20 + (256 + 4 + 1024)
    contents_in("at_once").write()
    for tensor in (whole, one, paged, *tensors.values()):
        tensor.zero_()
    again.write()
    for name in ("model.safetensors", "optimizer.pt"):
        assert (tmp_path / "behind" / name).read_bytes() == (tmp_path / "at_once" / name).read_bytes(), name
    read = torch.load(tmp_path / "behind" / "optimizer.pt", weights_only=False)["state"]
    assert read[0]["m"].data_ptr() == read[1]["m"].data_ptr()


def test_memory_of_copies_is_used_again():
    import torch

    from ftl_runtime.checkpoint.buffers import Buffers
    from ftl_runtime.checkpoint.contents import Contents

    contents = Contents()
    contents.add_pickle("unused", [torch.zeros(4), torch.zeros(4), torch.zeros(2)])
    buffers = Buffers()

    def places():
        return sorted(item.data_ptr() for item in contents.copied(buffers)._files[0].value)

    assert places() == places()
    assert buffers.num_bytes == 16 + 16 + 8


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 8000 * 1024),
        ({"memory.max": "max", "memory.current": "5"}, 8000 * 1024),
        ({"memory.max": "7000", "memory.current": "5000", "memory.stat": "anon 4\ninactive_file 300"}, 2300),
        (
            {
                "memory/memory.limit_in_bytes": "7000",
                "memory/memory.usage_in_bytes": "5000",
                "memory/memory.stat": "total_inactive_file 100",
            },
            2100,
        ),
    ],
    ids=["no limit", "version 2, no limit", "version 2", "version 1"],
)
def test_free_memory_is_the_least_of_machine_and_container(tmp_path, files, free):
    from ftl_runtime.checkpoint.room import free_main_memory

    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    8000 kB\n")
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/job\n0::/job\n")
    for name, content in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert free_main_memory(tmp_path / "proc", tmp_path / "cgroup") == free
    assert free_main_memory(tmp_path / "none", tmp_path / "none") is None


KINDS = {
    "full": {},
    "lora": {"adapter": {"kind": "lora", "rank": 4, "alpha": 8, "dropout": 0.1}},
    "schedule free": {"optim__optimizer": "schedule_free_adamw"},
}


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_run_saves_the_same_bytes_either_way_and_goes_on_from_them(make_attempt, monkeypatch, weights, changes):
    config = {"model": weights, "output__save_total_limit": 20, **changes}
    waiting, behind = make_attempt("waiting", **config), make_attempt("behind", **config)
    with monkeypatch.context() as patch:
        patch.setattr("ftl_runtime.train.trainer.ray_listens", lambda: True)
        waiting.train()
    behind.train(stop_at=5)
    behind.train()
    assert behind.events("resumed")[-1]["data"]["step"] == 5
    assert behind.losses() == waiting.losses()
    states = [(event["data"]["step"], event["data"]["state"]) for event in behind.events("checkpoint")]
    assert states == [(step, state) for step in (2, 4, 5, 6, 8, 10, 12) for state in ("saved", "verified")]
    for place in ("checkpoints/checkpoint-4", "checkpoints/checkpoint-12", "output"):
        ours, theirs = (
            {path.name: path.read_bytes() for path in (attempt.run / place).iterdir()} for attempt in (behind, waiting)
        )
        assert ours.keys() == theirs.keys()
        assert not {name for name in ours if ours[name] != theirs[name]}, place
