"""What goes along when a run goes on in another place: the newest checkpoint that is what its manifest says."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ftl import carry, jobs
from ftl.backends.local import LocalBackend, LocalCloud
from ftl.contract import Bundle, HubRef, JobHandle, JobSpec, UrlRef
from ftl.errors import BackendError, RunError
from ftl.jobs import Attempt, RunRecord
from ftl.launch import submit
from ftl.plan import moved


class Elsewhere(LocalBackend):
    """A provider that keeps run directories on a disk of its own."""

    place = "elsewhere"  # type: ignore[misc]

    def __init__(self, disk: Path) -> None:
        super().__init__(LocalCloud())
        self.disk = disk

    def read(self, handle: JobHandle, name: str, offset: int) -> bytes:
        path = self.disk / name
        return path.read_bytes()[offset:] if path.is_file() else b""

    def fetch(self, handle: JobHandle, name: str, dest: Path) -> None:
        shutil.copytree(self.disk / name, dest)


def make_checkpoint(run_dir: Path, step: int, *, best_step: int | None = None) -> Path:
    directory = run_dir / f"checkpoints/checkpoint-{step}"
    directory.mkdir(parents=True)
    (directory / "progress.json").write_text(json.dumps({"best_step": best_step}))
    (directory / "weights").write_bytes(b"w" * step)
    files = {
        path.name: {"size": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in directory.iterdir()
    }
    (directory / "manifest.json").write_text(json.dumps({"files": files}))
    return directory


def tell(run_dir: Path, attempt: int, *events: dict[str, Any]) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "events.jsonl").open("a") as file:
        for data in events:
            file.write(json.dumps({"t": 1.0, "attempt": attempt, "event": "checkpoint", "data": data}) + "\n")


def verified(step: int) -> dict[str, Any]:
    return {"step": step, "state": "verified"}


@pytest.fixture
def record(tmp_path: Path) -> RunRecord:
    handle = JobHandle(provider="local", run_id="r", attempt=1, ref={"run_dir": "", "pid_file": ""})
    made = RunRecord(
        id="r",
        name="r",
        created_at=1.0,
        ftl_version="0",
        config_path="cfg.yml",
        output_dir="out",
        provider="local",
        cloud={"provider": "local"},
        spec=JobSpec(run_id="r"),
        bundle=Bundle(sha256="b" * 64, path=str(tmp_path), size_bytes=1),
        attempts=(Attempt(number=1, submitted_at=1.0, handle=handle),),
    )
    jobs.save(made)
    return made


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    return Elsewhere(tmp_path / "disk")


def test_newest_checkpoint_of_a_run_here_goes_along_with_the_best_one(record: RunRecord) -> None:
    tell(record.dir, 3, *map(verified, (5, 10, 15)))
    make_checkpoint(record.dir, 5)
    make_checkpoint(record.dir, 10)
    make_checkpoint(record.dir, 15, best_step=5)
    taken = carry.take(record, LocalBackend(LocalCloud()), is_done=False)
    assert taken.names == ("checkpoints/checkpoint-5", "checkpoints/checkpoint-15", "events.jsonl")
    assert taken.last_attempt == 3


def test_broken_checkpoint_is_passed_over_and_told(record: RunRecord) -> None:
    tell(record.dir, 1, verified(5), verified(10))
    make_checkpoint(record.dir, 5)
    (make_checkpoint(record.dir, 10) / "weights").write_bytes(b"x" * 10)
    taken = carry.take(record, LocalBackend(LocalCloud()), is_done=False)
    assert "checkpoints/checkpoint-5" in taken.names
    assert "checkpoints/checkpoint-10" not in taken.names
    assert "step 10 is passed over" in taken.notes[0] and "weights: differs from" in taken.notes[0]


def test_checkpoint_that_lies_elsewhere_is_brought_here_with_what_was_told(
    record: RunRecord, elsewhere: Elsewhere
) -> None:
    tell(record.dir, 1, verified(5))
    make_checkpoint(record.dir, 5)
    shutil.copytree(record.dir, elsewhere.disk)
    tell(elsewhere.disk, 4, verified(10))
    (make_checkpoint(elsewhere.disk, 10) / "weights").chmod(0o600)
    taken = carry.take(record, elsewhere, is_done=False)
    assert (record.dir / "checkpoints/checkpoint-10/weights").read_bytes() == b"w" * 10
    assert (record.dir / "events.jsonl").read_bytes() == (elsewhere.disk / "events.jsonl").read_bytes()
    assert taken.last_attempt == 4, "the provider has started it again by itself"
    assert not list(record.dir.glob("checkpoints/.tmp-*"))


def test_run_whose_checkpoints_cannot_be_had_any_more_is_not_started_from_its_beginning(
    record: RunRecord, elsewhere: Elsewhere
) -> None:
    tell(elsewhere.disk, 1, *map(verified, range(1, 6)))
    with pytest.raises(
        RunError,
        match=r"^run r: the checkpoint of step 5: it is not there: none of its checkpoints can be had; `ftl train`",
    ):
        carry.take(record, elsewhere, is_done=False)


def test_place_that_does_not_answer_is_no_reason_to_take_an_older_checkpoint(
    record: RunRecord, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell(elsewhere.disk, 1, verified(5), verified(10))
    make_checkpoint(record.dir, 5)

    def away(*asked: object) -> None:
        raise BackendError("elsewhere: does not answer")

    monkeypatch.setattr(elsewhere, "fetch", away)
    with pytest.raises(BackendError, match="does not answer"):
        carry.take(record, elsewhere, is_done=False)


def test_checkpoint_that_a_bucket_has_is_not_carried(record: RunRecord) -> None:
    tell(record.dir, 1, verified(5), {"step": 5, "state": "pushed", "store": "s3://bucket/r"})
    make_checkpoint(record.dir, 5)
    taken = carry.take(record, LocalBackend(LocalCloud()), is_done=False)
    assert taken.names == ("events.jsonl",)
    assert taken.notes == ("the checkpoint of step 5 is fetched from s3://bucket/r",)


def test_directory_of_this_machine_is_no_store_for_another(record: RunRecord) -> None:
    tell(record.dir, 1, verified(5), {"step": 5, "state": "pushed", "store": "file:///bucket/r"})
    make_checkpoint(record.dir, 5)
    assert "checkpoints/checkpoint-5" in carry.take(record, LocalBackend(LocalCloud()), is_done=False).names
    stores = (HubRef(repo="ann/model"), UrlRef(url="file:///bucket"))
    spec = JobSpec(run_id="r", task="merge", stores=stores)
    assert moved(spec, LocalCloud(), {}).stores == (HubRef(repo="ann/model"),)
    assert moved(spec, LocalCloud(), {}).task == "merge"


def test_run_without_a_checkpoint_begins_at_its_start(record: RunRecord) -> None:
    taken = carry.take(record, LocalBackend(LocalCloud()), is_done=False)
    assert (taken.names, taken.notes) == ((), ("it has no checkpoint yet, and begins at its start",))


def test_finished_model_goes_along_to_where_it_is_delivered_from(record: RunRecord, elsewhere: Elsewhere) -> None:
    made = make_checkpoint(elsewhere.disk, 1)
    made.rename(elsewhere.disk / "output")
    (elsewhere.disk / "result.json").write_text("{}")
    assert carry.take(record, elsewhere, is_done=True).names == ("output", "result.json")
    assert (record.dir / "output/weights").read_bytes() == b"w"


def test_attempts_are_noted_in_order_with_whom_they_were_given_to(record: RunRecord, elsewhere: Elsewhere) -> None:
    handle = JobHandle(provider="elsewhere", run_id="r", attempt=5, ref={})
    elsewhere.submit = lambda spec, bundle, run_dir: handle  # type: ignore[method-assign]
    done = submit(record, elsewhere, above=4, provider="elsewhere", cloud={"provider": "elsewhere"})
    assert [attempt.number for attempt in done.attempts] == [1, 5]
    assert done.providers == ("local", "elsewhere")
