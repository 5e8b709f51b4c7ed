"""Run records: atomic, found by a prefix, readable by an older and a newer ftl."""

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from ftl import jobs
from ftl.contract import Bundle, JobSpec
from ftl.errors import RunError
from ftl.jobs import Attempt, RunRecord


def record(run_id: str, created_at: float = 1.0) -> RunRecord:
    return RunRecord(
        id=run_id,
        name="cfg",
        created_at=created_at,
        ftl_version="0.1.0",
        config_path="/w/cfg.yml",
        output_dir="/w/out",
        provider="local",
        cloud={"provider": "local"},
        spec=JobSpec(run_id=run_id),
        bundle=Bundle(sha256="a" * 64, path="/b", size_bytes=1),
    )


def test_prefix_that_one_id_has_finds_the_run() -> None:
    jobs.save(record("abc234-cfg"))
    jobs.save(record("abd234-cfg"))
    assert jobs.find("abc").id == "abc234-cfg"


def test_prefix_that_two_ids_have_names_both() -> None:
    jobs.save(record("abc234-cfg"))
    jobs.save(record("abd234-cfg"))
    with pytest.raises(RunError, match=r"run 'ab': begins 2 ids: .*abc234-cfg"):
        jobs.find("ab")


def test_full_id_that_begins_another_id_is_found() -> None:
    jobs.save(record("abc234-cfg"))
    jobs.save(record("abc234-cfg-two"))
    assert jobs.find("abc234-cfg").id == "abc234-cfg"


def test_unknown_id_says_what_to_do() -> None:
    with pytest.raises(RunError, match=r"run 'zz': is not known on this machine; `ftl ps` lists the runs"):
        jobs.find("zz")


@pytest.mark.parametrize("given", ["../../etc", "", "."])
def test_id_never_leaves_the_runs_directory(given: str) -> None:
    with pytest.raises(RunError):
        jobs.find(given)


def test_without_an_id_the_newest_run_is_taken() -> None:
    jobs.save(record("bbb-cfg", created_at=5.0))
    jobs.save(record("aaa-cfg", created_at=9.0))
    jobs.save(record("ccc-cfg", created_at=7.0))
    assert jobs.find(None).id == "aaa-cfg"


def test_state_is_for_this_user_alone(own_state: Path) -> None:
    jobs.save(record("abc234-cfg"))
    assert stat.S_IMODE((own_state / "runs").stat().st_mode) == 0o700
    assert stat.S_IMODE((own_state / "runs/abc234-cfg").stat().st_mode) == 0o700


def test_key_of_a_newer_ftl_survives_a_rewrite_by_this_one() -> None:
    jobs.save(record("abc234-cfg"))
    path = jobs.runs_dir() / "abc234-cfg/record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "from_the_future": [1, 2]}))
    jobs.update("abc234-cfg", delivered_at=3.0)
    assert json.loads(path.read_text())["from_the_future"] == [1, 2]


def test_record_without_the_keys_added_later_is_read() -> None:
    jobs.save(record("abc234-cfg"))
    path = jobs.runs_dir() / "abc234-cfg/record.json"
    old = json.loads(path.read_text())
    for key in ("attempts", "stop_requested_at", "delivered_at"):
        del old[key]
    path.write_text(json.dumps(old))
    assert jobs.load("abc234-cfg").attempts == ()


def test_unreadable_record_is_one_sentence_and_hides_no_other_run() -> None:
    jobs.save(record("abc234-cfg"))
    jobs.save(record("bbb234-cfg"))
    (jobs.runs_dir() / "abc234-cfg/record.json").write_text('{"id": 3')
    with pytest.raises(RunError, match=r"record\.json"):
        jobs.load("abc234-cfg")
    assert [r.id for r in jobs.all_records()] == ["bbb234-cfg"]


def test_failed_write_leaves_the_old_record(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.save(record("abc234-cfg", created_at=1.0))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        jobs.save(record("abc234-cfg", created_at=2.0))
    assert jobs.load("abc234-cfg").created_at == 1.0
    assert [p.name for p in (jobs.runs_dir() / "abc234-cfg").iterdir()] == ["record.json"]


def test_concurrent_updates_lose_nothing() -> None:
    jobs.save(record("abc234-cfg"))

    def add(number: int) -> None:
        with jobs.changing("abc234-cfg") as current:
            jobs.save(jobs.add_attempt(current, Attempt(number=number, submitted_at=0.0)))

    threads = [threading.Thread(target=add, args=(n,)) for n in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(a.number for a in jobs.load("abc234-cfg").attempts) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_new_ids_are_plain_and_begin_with_a_random_part() -> None:
    run_id = jobs.new_id("My Config! é")
    token, _, name = run_id.partition("-")
    assert len(token) == 6
    assert name == "my-config"
    assert jobs.new_id("x") != jobs.new_id("x")
