"""The protocol of checkpoint directories: nothing half-written or damaged is ever taken for whole."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from ftl.errors import StorageError
from ftl_runtime.checkpoint.manifest import BrokenCheckpoint, check, parse
from ftl_runtime.checkpoint.volume import VolumeStore, newest_step, storage_errors

FILES = {"model.safetensors": b"w" * 3000, "optimizer.pt": b"o" * 2000, "sub/progress.json": b"{}"}


class Events(list):
    def __call__(self, event, data):
        self.append((event, data))

    def states(self):
        return [(data["step"], data["state"]) for event, data in self if event == "checkpoint"]


@pytest.fixture
def events():
    return Events()


@pytest.fixture
def store(tmp_path, events):
    return VolumeStore(tmp_path, "run-a", events)


def save(store, step):
    stage = store.stage(step)
    for name, content in FILES.items():
        (stage / name).parent.mkdir(exist_ok=True)
        (stage / name).write_bytes(content)
    return store.commit(stage, step)


def test_committed_checkpoint_is_valid_and_counts_its_bytes(store):
    checkpoint = save(store, 5)
    assert checkpoint.path.name == "checkpoint-5"
    assert store.verify(checkpoint) == 3000 + 2000 + 2


def test_newest_is_by_step_not_by_name_or_time(store):
    for step in (10, 9, 100):
        save(store, step)
    os.utime(store.latest_valid().path, (0, 0))
    assert store.latest_valid().step == 100


def test_empty_directory_has_no_checkpoint(store, tmp_path):
    assert store.latest_valid() is None
    assert newest_step(tmp_path) is None


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "bit flipped": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]),
    "a symlink": lambda path: (path.unlink(), path.symlink_to("/etc/hostname")),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_damaged_checkpoint_is_quarantined_and_the_older_one_used(store, events, tmp_path, name, damage):
    save(store, 1)
    damage(save(store, 2).path / name)
    assert store.latest_valid().step == 1
    assert events.states() == [(2, "quarantined")]
    assert [path.name.rsplit("-", 1)[0] for path in (tmp_path / "quarantine").iterdir()] == ["checkpoint-2"]
    assert not (tmp_path / "checkpoint-2").exists()


def test_file_that_the_manifest_does_not_list_breaks_a_checkpoint(store):
    (save(store, 1).path / "pytorch_model.bin").write_bytes(b"evil")
    assert store.latest_valid() is None


_PATHS_OUT = ["../outside", "/etc/hostname", "a/../../outside", "..\\outside", "", "a\nb", "a\0b"]


@pytest.mark.parametrize(
    "path", [*_PATHS_OUT, "x" * 256, "/".join(["y" * 250] * 5), "\u00fc" * 128, "\ud800"], ids=ascii
)
def test_manifest_may_not_lead_out_of_its_directory(store, tmp_path, path):
    checkpoint = save(store, 1)
    (tmp_path / "outside").write_bytes(b"x")
    manifest = json.loads((checkpoint.path / "manifest.json").read_text())
    manifest["files"][path] = {"size": 1, "sha256": "0" * 64}
    (checkpoint.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BrokenCheckpoint, match="not a plain path inside it"):
        check(checkpoint.path, run_id="run-a", step=1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": 1, "run_id": "run-a", "step": 1, "files": {}}',
        '{"version": 1, "run_id": "run-a", "step": 1, "files": {"a": {"size": -1, "sha256": "0"}}}',
        '{"version": 2}',
        '{"files": 3}',
        "[" * 100_000,
        '{"version": 1, "run_id": "run-a", "step": 1, "files": {"a": {"size": %s, "sha256": "0"}}}' % ("9" * 5000),
    ],
    ids=lambda text: text[:40],
)
def test_manifest_of_another_shape_is_broken_not_a_crash(store, text):
    (save(store, 1).path / "manifest.json").write_text(text)
    assert store.latest_valid() is None


ENTRY = {"size": 1, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({str(number): ENTRY for number in range(100_001)}, "lists 100001 files, and 100000 at most are believed"),
        ({"a": ENTRY, "b": ENTRY | {"size": 2**50}}, "bytes, and 1125899906842624 at most are believed"),
        ({"a": ENTRY, "a/b": ENTRY}, "its manifest names 'a', as a file and as a directory"),
        ({"a": ENTRY, " " * 2**26: ENTRY}, "bytes, and 67108864 at most are believed"),
    ],
    ids=["files", "bytes", "file that is a directory", "length"],
)
def test_manifest_that_asks_for_too_much_is_not_believed(files, told):
    content = {"version": 1, "run_id": "run-a", "step": 1, "files": files}
    with pytest.raises(BrokenCheckpoint, match=told):
        parse(json.dumps(content).encode())


def test_checkpoint_of_another_run_is_not_picked(store, events, tmp_path):
    save(VolumeStore(tmp_path, "run-b", events), 7)
    save(store, 3)
    assert store.latest_valid().step == 3


def test_checkpoint_renamed_to_a_later_step_is_not_picked(store, tmp_path):
    save(store, 3).path.rename(tmp_path / "checkpoint-9")
    assert store.latest_valid() is None


def test_valid_checkpoint_is_kept_when_its_step_is_saved_again(store, tmp_path):
    first = save(store, 4)
    inode = (first.path / "optimizer.pt").stat().st_ino
    save(store, 4)
    assert (first.path / "optimizer.pt").stat().st_ino == inode
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-4"]


def test_broken_checkpoint_makes_room_when_its_step_is_saved_again(store, events):
    (save(store, 4).path / "optimizer.pt").unlink()
    assert store.verify(save(store, 4)) == 5002
    assert events.states() == [(4, "quarantined")]


def test_leftovers_of_killed_writers_are_removed(store, tmp_path):
    (tmp_path / ".tmp-3-abc").mkdir()
    (tmp_path / ".tmp-3-abc" / "model.safetensors").write_bytes(b"half")
    assert store.latest_valid() is None
    assert list(tmp_path.iterdir()) == []


def test_prune_keeps_the_newest_and_nothing_else(store, tmp_path):
    newest = [save(store, step) for step in (1, 2, 3, 4)][-1]
    store.prune(2, newest, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-3", "checkpoint-4"]


def test_prune_drops_nothing_that_is_not_older_than_the_verified_one(store, tmp_path):
    checkpoints = [save(store, step) for step in (1, 2, 3)]
    store.prune(1, checkpoints[0], None)
    assert len(list(tmp_path.iterdir())) == 3


# Every call that changes the disk while a checkpoint is written is a point to be killed at.
SAVE_AND_DIE = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    calls = 0
    def counted(real):
        def call(*args, **kwargs):
            global calls
            calls += 1
            if calls == int(sys.argv[2]):
                os._exit(9)
            return real(*args, **kwargs)
        return call
    from ftl_runtime.checkpoint.volume import VolumeStore
    store = VolumeStore(Path(sys.argv[1]), "run-a", lambda event, data: None)
    os.fsync, Path.rename, Path.mkdir, os.open = map(counted, (os.fsync, Path.rename, Path.mkdir, os.open))
    stage = store.stage(2)
    for name in ("model.safetensors", "optimizer.pt"):
        with open(stage / name, "wb") as file:
            file.write(b"x" * 5000)
    store.commit(stage, 2)
    print(calls)
    """
)


def test_writer_killed_at_any_call_leaves_the_older_or_the_whole_newer_checkpoint(tmp_path):
    def save_and_die(at: int, root: Path) -> subprocess.CompletedProcess:
        save(VolumeStore(root, "run-a", Events()), 1)
        return subprocess.run([sys.executable, "-c", SAVE_AND_DIE, str(root), str(at)], capture_output=True, text=True)

    num_calls = int(save_and_die(0, tmp_path / "whole").stdout)
    assert num_calls >= 8
    found = []
    for at in range(1, num_calls + 1):
        root = tmp_path / str(at)
        assert save_and_die(at, root).returncode == 9
        found.append(VolumeStore(root, "run-a", Events()).latest_valid().step)
    assert found == sorted(found), "once published, it stays"
    assert set(found) == {1, 2}


def test_other_errors_pass_through_storage_errors(tmp_path):
    with pytest.raises(ValueError, match="mine"), storage_errors(tmp_path):
        raise ValueError("mine")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", mount]).returncode != 0:
        pytest.skip("this container may not mount a tmpfs")
    yield mount
    subprocess.run(["umount", "-l", mount], check=True)


def test_full_disk_is_one_sentence_and_the_older_checkpoint_stays(small_disk, events):
    torch = pytest.importorskip("torch")
    store = VolumeStore(small_disk / "checkpoints", "run-a", events)
    save(store, 1)
    stage = store.stage(2)
    with pytest.raises(StorageError) as caught, storage_errors(store._root):
        torch.save({"weights": torch.zeros(1_000_000)}, stage / "optimizer.pt")
    assert str(caught.value) == f"{small_disk}/checkpoints: the disk is full; free some space, then resume"
    store.discard(stage)
    assert store.latest_valid().step == 1
    assert [path.name for path in store._root.iterdir()] == ["checkpoint-1"]


def test_prune_spares_the_best(store):
    checkpoints = [save(store, step) for step in (1, 2, 3)]
    store.prune(1, checkpoints[-1], 1)
    assert [c for c in (1, 2, 3) if store.valid(c)] == [1, 3]
