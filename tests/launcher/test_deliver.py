"""Delivery: every file verified, an earlier delivery replaced as a whole, foreign files never touched."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ftl import deliver, jobs
from ftl.contract import Bundle, JobHandle, JobSpec
from ftl.errors import DeliveryError, RunError
from ftl.jobs import Attempt, RunRecord


class Directory:
    """A backend whose runs are a directory of this machine."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir

    def read(self, handle: JobHandle, name: str, offset: int) -> bytes:
        path = self.run_dir / name
        return path.read_bytes()[offset:] if path.exists() else b""

    def fetch(self, handle: JobHandle, name: str, dest: Path) -> None:
        shutil.copytree(self.run_dir / name, dest)


def write_manifest(directory: Path) -> None:
    files = {}
    for path in directory.iterdir():
        content = path.read_bytes()
        files[path.name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (directory / "manifest.json").write_text(json.dumps({"version": 1, "files": files}))


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    handle = JobHandle(provider="local", run_id="abc-x", attempt=1, ref={})
    made = RunRecord(
        id="abc-x",
        name="x",
        created_at=1.0,
        ftl_version="0",
        config_path="c",
        output_dir=str(tmp_path / "out"),
        base_model="/models/base",
        provider="local",
        cloud={},
        spec=JobSpec(run_id="abc-x"),
        bundle=Bundle(sha256="a", path="b", size_bytes=0),
        attempts=(Attempt(number=1, submitted_at=1.0, handle=handle),),
    )
    jobs.save(made)
    return made


@pytest.fixture
def backend(tmp_path: Path) -> Directory:
    output = tmp_path / "run/output"
    output.mkdir(parents=True)
    (output / "adapter_model.safetensors").write_bytes(b"weights")
    (output / "adapter_config.json").write_text('{"r": 8, "base_model_name_or_path": "/inside/the/job"}')
    write_manifest(output)
    result = {"run_id": "abc-x", "attempt": 1, "steps": 1, "epochs": 1, "tokens": 1, "seconds": 1}
    result |= {"train_loss_first": 1, "train_loss_last": 1, "num_parameters": 1, "num_trainable": 1}
    (tmp_path / "run/result.json").write_text(json.dumps(result))
    return Directory(tmp_path / "run")


def test_adapter_names_its_base_as_this_machine_knows_it(record: RunRecord, backend: Directory, tmp_path: Path) -> None:
    deliver.output(record, backend, tmp_path / "out")  # type: ignore[arg-type]  # the half of a backend that is used
    delivered = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert delivered == {"r": 8, "base_model_name_or_path": "/models/base"}
    deliver.verify(tmp_path / "out")


def test_flipped_byte_is_found_and_nothing_is_delivered(record: RunRecord, backend: Directory, tmp_path: Path) -> None:
    (tmp_path / "run/output/adapter_model.safetensors").write_bytes(b"weightz")
    with pytest.raises(DeliveryError, match=r"adapter_model\.safetensors: differs from what the run wrote"):
        deliver.output(record, backend, tmp_path / "out")  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_manifest_that_leads_outside_is_refused(record: RunRecord, backend: Directory, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    manifest = {"files": {"../../secret": {"sha256": hashlib.sha256(b"x").hexdigest(), "size": 1}}}
    (tmp_path / "run/output/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DeliveryError, match="is missing from the copy"):
        deliver.output(record, backend, tmp_path / "out")  # type: ignore[arg-type]


def test_earlier_delivery_is_replaced_as_a_whole(record: RunRecord, backend: Directory, tmp_path: Path) -> None:
    old = tmp_path / "out"
    old.mkdir()
    (old / "from-an-older-run.bin").write_bytes(b"old")
    write_manifest(old)
    deliver.output(record, backend, old)  # type: ignore[arg-type]
    assert sorted(p.name for p in old.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "manifest.json",
    ]


def test_delivery_with_a_merged_model_below_it_is_replaced_too(
    record: RunRecord, backend: Directory, tmp_path: Path
) -> None:
    old = tmp_path / "out"
    (old / "merged").mkdir(parents=True)
    (old / "adapter_model.safetensors").write_bytes(b"old")
    (old / "manifest.json").write_text(json.dumps({"files": {"adapter_model.safetensors": {}}}))
    (old / "merged/model.safetensors").write_bytes(b"old")
    write_manifest(old / "merged")
    assert deliver.check_destination(old, "output_dir") is None
    (old / "merged/notes.txt").write_text("mine")
    problem = deliver.check_destination(old, "output_dir")
    assert problem is not None and "files that ftl did not write" in str(problem)


def test_directory_with_a_file_of_the_user_is_left_alone(record: RunRecord, backend: Directory, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(DeliveryError, match="files that ftl did not write"):
        deliver.output(record, backend, out)  # type: ignore[arg-type]
    assert [p.name for p in out.iterdir()] == ["notes.txt"]


def test_unfinished_run_names_its_checkpoint(record: RunRecord, backend: Directory, tmp_path: Path) -> None:
    (tmp_path / "run/result.json").unlink()
    event = {"t": 1, "attempt": 1, "event": "checkpoint", "data": {"step": 30, "state": "verified"}}
    (tmp_path / "run/events.jsonl").write_text(json.dumps(event) + "\n")
    with pytest.raises(RunError, match="--checkpoint takes the one of step 30"):
        deliver.output(record, backend, tmp_path / "out")  # type: ignore[arg-type]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small tmpfs")
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_place_that_may_not_be_written_is_known_before_training_and_takes_the_model_later(
    record: RunRecord, backend: Directory, small_disk: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    dest = small_disk / "deep/out"
    problem = deliver.check_destination(dest, "output_dir")
    assert str(problem) == f"output_dir: {dest}: {small_disk} may not be written; give another path"
    with pytest.raises(DeliveryError, match=f"{small_disk} may not be written"):
        deliver.output(record, backend, dest)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    deliver.verify(deliver.output(record, backend, dest))


def test_full_disk_is_named_and_the_earlier_delivery_stays(
    record: RunRecord, backend: Directory, small_disk: Path
) -> None:
    dest = deliver.output(record, backend, small_disk / "out")
    before = {path.name: path.read_bytes() for path in dest.iterdir()}
    (backend.run_dir / "output/model.safetensors").write_bytes(bytes(100_000))
    (backend.run_dir / "output/manifest.json").unlink()
    write_manifest(backend.run_dir / "output")
    with pytest.raises(DeliveryError) as caught:
        deliver.output(record, backend, dest)
    assert str(caught.value).startswith(f"{dest}: model.safetensors: [Errno 28] No space left on device")
    assert str(caught.value).endswith("the model is safe in run abc-x; `ftl pull` copies it again")
    assert {path.name: path.read_bytes() for path in dest.iterdir()} == before
    assert [path.name for path in small_disk.iterdir()] == ["out"]
