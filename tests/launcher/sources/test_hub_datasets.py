"""Repositories of a Hub on loopback, read by the real clients in a process of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_server import HubServer
from source_worker import SourceWorker

ROWS = {"train.jsonl": b'{"n": 1}\n{"n": 2}\n{"n": 3}\n', "test.jsonl": b'{"n": 9}\n'}


@pytest.fixture(autouse=True)
def healed(hub: HubServer) -> Iterator[None]:
    yield
    hub.heal()


def test_rows_come_with_their_place_and_the_commit(hub: HubServer, worker: SourceWorker) -> None:
    commit = hub.add("dataset", "org/rows", ROWS)
    got = worker.read({"path": "org/rows", "split": "train[1:]"})
    assert got["rows"] == [[1, "org/rows[train]:2", {"n": 2}], [2, "org/rows[train]:3", {"n": 3}]]
    assert got["revision"] == commit
    assert got["num_rows"] == 2


def test_revision_stays_what_it_was_when_the_branch_moves_on(hub: HubServer, worker: SourceWorker) -> None:
    first = hub.add("dataset", "org/moving", {"train.jsonl": b'{"n": 1}\n'})
    before = worker.read({"path": "org/moving", "revision": first})
    second = hub.add("dataset", "org/moving", {"train.jsonl": b'{"n": 2}\n'})
    assert worker.read({"path": "org/moving", "revision": first}) == before
    after = worker.read({"path": "org/moving", "revision": "main"})
    assert (after["revision"], after["rows"][0][2]) == (second, {"n": 2})
    assert after["identity"] != before["identity"]


def test_branch_is_read(hub: HubServer, worker: SourceWorker) -> None:
    hub.add("dataset", "org/branched", {"train.jsonl": b'{"n": 1}\n'})
    hub.add("dataset", "org/branched", {"train.jsonl": b'{"n": 2}\n'}, branch="next")
    assert worker.read({"path": "org/branched", "revision": "next"})["rows"][0][2] == {"n": 2}


def test_streamed_rows_are_those_that_are_stored(hub: HubServer, worker: SourceWorker) -> None:
    hub.add("dataset", "org/stream", ROWS)
    got = worker.read({"path": "org/stream", "skip": 1}, is_streamed=True)
    assert got["rows"] == worker.read({"path": "org/stream", "skip": 1})["rows"]
    assert got["num_rows"] is None


def test_data_files_choose_files_of_the_repository(hub: HubServer, worker: SourceWorker) -> None:
    hub.add("dataset", "org/files", {"a.jsonl": b'{"n": 1}\n', "b.jsonl": b'{"n": 2}\n'})
    assert [row[2] for row in worker.read({"path": "org/files", "data_files": ["b.jsonl"]})["rows"]] == [{"n": 2}]


def test_name_chooses_a_configuration(hub: HubServer, worker: SourceWorker) -> None:
    card = b"---\nconfigs:\n- config_name: en\n  data_files: en.jsonl\n- config_name: fr\n  data_files: fr.jsonl\n---\n"
    hub.add("dataset", "org/two", {"README.md": card, "en.jsonl": b'{"n": 1}\n', "fr.jsonl": b'{"n": 2}\n'})
    assert worker.read({"path": "org/two", "name": "fr"})["rows"][0][2] == {"n": 2}
    several = "name: org/two has several configurations: must be one of en, fr"
    assert worker.read({"path": "org/two"})["refused"] == several
    assert worker.read({"path": "org/two", "name": "de"})["refused"] == "name: 'de': must be one of en, fr"


def test_unknown_split_and_revision_are_named(hub: HubServer, worker: SourceWorker) -> None:
    hub.add("dataset", "org/known", ROWS)
    assert worker.read({"path": "org/known", "split": "dev"})["refused"] == "split: 'dev': must be one of train, test"
    wanted = "revision: v9: is no branch, tag or commit of org/known"
    assert worker.read({"path": "org/known", "revision": "v9"})["refused"] == wanted


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"odd.py": b"", "data.bin": b""}, "is read by a script of its own, which is not run; use `revision: refs/"),
        ({"notes.md": b"x"}, "holds no data files that can be read"),
        ({"a.jsonl": b'{"n": 1}\n{"n"\n'}, "cannot be read: JSON parse error"),
    ],
    ids=["script", "empty", "broken"],
)
def test_repository_that_cannot_be_read_says_why(
    hub: HubServer, worker: SourceWorker, files: dict[str, bytes], said: str
) -> None:
    hub.add("dataset", "org/odd", files)
    got = worker.read({"path": "org/odd"})
    assert got["refused"].startswith(f"path: org/odd: {said}")
    assert "\n" not in got["refused"]


def test_missing_repository_asks_for_a_token_only_when_there_is_none(worker: SourceWorker) -> None:
    asked = "path: org/gone: no such dataset on the Hub, or it is private; log in with `hf auth login` or set HF_TOKEN"
    assert worker.read({"path": "org/gone"})["refused"] == asked
    known = "path: org/gone: no such dataset on the Hub, or your token may not see it"
    assert worker.read({"path": "org/gone"}, env={"HF_TOKEN": "hf_x"})["refused"] == known


def test_private_repository_is_read_with_its_token(hub: HubServer, worker: SourceWorker) -> None:
    hub.add("dataset", "org/private", ROWS, is_private=True, readers=("hf_good",))
    assert "or it is private" in worker.read({"path": "org/private"})["refused"]
    assert len(worker.read({"path": "org/private"}, env={"HF_TOKEN": "hf_good"})["rows"]) == 3


def test_gated_repository_says_where_to_ask(hub: HubServer, worker: SourceWorker) -> None:
    hub.add("dataset", "org/gated", ROWS, is_gated=True, readers=("hf_good",))
    page = f"{hub.url}/datasets/org/gated"
    assert worker.read({"path": "org/gated"})["refused"] == (
        f"path: org/gated: is gated, and you are not logged in; ask for access at {page}, "
        "then log in with `hf auth login` or set HF_TOKEN"
    )
    assert worker.read({"path": "org/gated"}, env={"HF_TOKEN": "hf_x"})["refused"] == (
        f"path: org/gated: is gated, and your token has no access; ask for access at {page}"
    )
    assert len(worker.read({"path": "org/gated"}, env={"HF_TOKEN": "hf_good"})["rows"]) == 3


def test_short_outage_is_waited_for(hub: HubServer, worker: SourceWorker) -> None:
    hub.add("dataset", "org/busy", ROWS)
    hub.fail(429, times=1, path="org/busy/revision", headers={"Retry-After": "3600"})
    hub.fail(429, times=1, path="org/busy")
    got = worker.read({"path": "org/busy"})
    assert len(got["rows"]) == 3
    assert got["waits"][0] in (5.0, 30.0)
    assert max(got["waits"]) <= 30.0


def test_long_outage_ends_with_the_budget_told(hub: HubServer, worker: SourceWorker) -> None:
    hub.fail(503, times=1000)
    got = worker.read({"path": "org/never_seen"})
    assert got["kind"] == "UnreachableError"
    assert got["refused"] == f"path: org/never_seen: {hub.url} answered 503, 3 times in 15 s; try again later"
    assert got["waits"] == [5.0, 10.0]


def test_offline_reads_what_was_read_before(hub: HubServer, tmp_path: Path) -> None:
    hub.add("dataset", "org/kept", ROWS)
    home = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf")}
    for env in (home, home | {"HF_HUB_OFFLINE": "1"}):
        hub.requests.clear()
        worker = SourceWorker(env)
        kept, unknown = worker.read({"path": "org/kept"}), worker.read({"path": "org/unknown"})
        worker.close()
        assert len(kept["rows"]) == 3
    assert hub.requests == []
    assert unknown["refused"] == "path: org/unknown: is not on this machine, and HF_HUB_OFFLINE is set"
