"""Tier 3 of `ftl check` against a Hub on loopback, with the real client in a process of its own."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hub_server import HubServer
from letters import MakeConfig, save_tokenizer

from ftl.inspect.remote import MAX_FETCHED_BYTES, MAX_HUB_ROWS

ANN = {"name": "ann", "type": "user", "auth": {"accessToken": {"role": "write"}}}
READER = {"name": "ann", "type": "user", "auth": {"accessToken": {"role": "read"}}}
Check = Callable[..., tuple[int, list[str], list[str]]]


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def check(hub: HubServer, make_config: MakeConfig, tmp_path: Path) -> Check:
    """Run `ftl check` of a config with such keys; the exit code, the problems and the notes."""

    def run(*arguments: str, token: str = "", url: str = "", **keys: Any) -> tuple[int, list[str], list[str]]:
        config = make_config([{"text": "fine"}], **keys)
        environment = {**os.environ, "HF_ENDPOINT": url or hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": token}
        environment.pop("HF_HUB_OFFLINE", None)
        command = [sys.executable, "-c", "from ftl.cli import main; main()", "check", str(config), "--json", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
        assert "Traceback" not in done.stderr
        events = [json.loads(line) for line in done.stdout.splitlines()]
        of = {kind: [e["text"] for e in events if e["event"] == kind] for kind in ("problem", "note")}
        return done.returncode, of["problem"], of["note"]

    return run


def test_repository_that_is_there_is_no_problem(check: Check, hub: HubServer, tmp_path: Path) -> None:
    files = {file.name: file.read_bytes() for file in save_tokenizer(tmp_path / "model").iterdir()}
    hub.add("model", "org/model", files)
    assert check(base_model="org/model") == (0, [], [])


def test_tokenizer_files_alone_are_fetched(check: Check, hub: HubServer, tmp_path: Path) -> None:
    files = {file.name: file.read_bytes() for file in save_tokenizer(tmp_path / "model").iterdir()}
    hub.add("model", "org/model", {**files, "model.safetensors": b"weights"})
    check(base_model="org/model")
    fetched = {request.path.rpartition("/")[2] for request in hub.requests if "/resolve/" in request.path}
    assert fetched == {"tokenizer.json", "tokenizer_config.json"}


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"base_model": "org/absent"}, ["cfg.yml:1: base_model: org/absent"]),
        ({"model_revision": "v9"}, ["v9"]),
        ({"base_model": "org/gated"}, ["cfg.yml:1: base_model: org/gated", "gated"]),
    ],
    ids=["absent", "revision", "gated"],
)
def test_repository_that_cannot_be_read_is_a_problem(
    check: Check, hub: HubServer, keys: dict[str, str], said: list[str]
) -> None:
    hub.add("model", "org/model", {"config.json": b"{}"})
    hub.add("model", "org/gated", {"config.json": b"{}"}, is_gated=True, readers=("granted",))
    code, problems, _ = check(**{"base_model": "org/model", **keys})
    assert code == 2
    assert len(problems) == 1
    assert all(words in problems[0] for words in said)


def test_token_with_access_opens_a_gated_repository(check: Check, hub: HubServer) -> None:
    hub.add("model", "org/gated", {"config.json": b"{}"}, is_gated=True, readers=("granted",))
    assert check(token="granted", base_model="org/gated")[:2] == (0, [])


@pytest.mark.parametrize(
    ("account", "target", "said"),
    [
        (None, "ann/model", "pushing needs a token, and there is none"),
        (READER, "ann/model", "the token of ann can only read"),
        (ANN, "org/model", "ann is not a member of org"),
        ({**ANN, "orgs": [{"name": "org", "roleInOrg": "read"}]}, "org/model", "ann may not write in org"),
        (ANN, "ann/theirs", "the token of ann may not write to it"),
    ],
    ids=["no token", "reads only", "no member", "role", "existing"],
)
def test_target_that_cannot_be_written_is_a_problem(
    check: Check, hub: HubServer, account: dict[str, Any] | None, target: str, said: str
) -> None:
    hub.add("model", "ann/theirs", {"config.json": b"{}"})
    hub.accounts["token"] = account
    _, problems, _ = check(token="token" if account else "", hub_model_id=target)
    told = [problem for problem in problems if "not built" not in problem]
    assert len(told) == 1
    assert f"hub_model_id: {target}: {said}" in told[0]


def test_dataset_that_cannot_be_pushed_to_is_a_problem(check: Check, hub: HubServer) -> None:
    hub.add("dataset", "org/theirs", {"README.md": b""})
    hub.accounts["token"] = ANN
    _, problems, _ = check(token="token", push_dataset_to_hub="org/theirs")
    (told,) = problems
    assert "push_dataset_to_hub: org/theirs: the token of ann may not write to it; set HF_TOKEN" in told


@pytest.mark.parametrize(
    ("account", "target"),
    [
        (ANN, "ann/new"),
        (ANN, "new"),
        ({**ANN, "orgs": [{"name": "org", "roleInOrg": "write"}]}, "org/new"),
        (ANN, "org/ours"),
    ],
    ids=["own", "bare", "organisation", "existing"],
)
def test_target_that_can_be_written_is_no_problem(
    check: Check, hub: HubServer, account: dict[str, Any], target: str
) -> None:
    hub.add("model", "org/ours", {"config.json": b"{}"}, writers=("token",))
    hub.accounts["token"] = account
    _, problems, _ = check(token="token", hub_model_id=target)
    assert [problem for problem in problems if "not built" not in problem] == []


def test_hub_that_does_not_answer_is_one_note(check: Check) -> None:
    code, problems, notes = check(url="http://127.0.0.1:9", datasets=[{"path": "org/rows", "type": "completion"}])
    assert (code, problems) == (0, [])
    assert notes == [
        "datasets.0: the rows are not checked: the Hub does not answer",
        "not looked up on the Hub, which does not answer: org/rows",
    ]


def test_broken_row_of_the_hub_is_found(check: Check, hub: HubServer) -> None:
    hub.add("dataset", "org/rows", {"train.jsonl": b'{"text": "far"}\n{"text": null}\n'})
    code, problems, notes = check(datasets=[{"path": "org/rows", "type": "completion"}])
    assert code == 2
    assert len(problems) == 1
    assert problems[0].startswith("org/rows[train]:2: ")
    assert notes == []


def test_first_rows_of_a_large_repository_are_checked_and_that_is_told(check: Check, hub: HubServer) -> None:
    rows = b'{"text": "far"}\n' * (MAX_HUB_ROWS + 1)
    hub.add("dataset", "org/many", {"train.jsonl": rows + b'{"text": null}\n'})
    datasets = [{"path": "org/many", "type": "completion"}]
    code, problems, notes = check(datasets=datasets)
    assert (code, problems) == (0, [])
    assert "datasets.0: the first 10,000 rows are checked; --all-rows checks all" in notes
    code, problems, _ = check("--all-rows", datasets=datasets)
    assert code == 2
    assert problems[0].startswith("org/many[train]:10002: ")


def test_rows_that_must_be_counted_first_are_left_and_that_is_told(check: Check, hub: HubServer) -> None:
    hub.add("dataset", "org/sliced", {"train.jsonl": b'{"text": "far"}\n'})
    datasets = [{"path": "org/sliced", "type": "completion", "split": "train[:50%]"}]
    code, problems, notes = check(datasets=datasets)
    assert (code, problems) == (0, [])
    assert len(notes) == 1
    assert "`split` chooses; `ftl check --all-rows` reads them" in notes[0]


def test_missing_column_of_the_hub_is_found_without_a_tokenizer(check: Check, hub: HubServer) -> None:
    hub.add("dataset", "org/chat", {"train.jsonl": b'{"body": "far"}\n'})
    hub.add("model", "org/model", {"config.json": b"{}"})
    _, problems, _ = check(base_model="org/model", datasets=[{"path": "org/chat", "type": "alpaca"}])
    assert len(problems) == 1
    assert "`body`" in problems[0]


@pytest.mark.parametrize(
    "dataset",
    [
        {"type": "alpacca"},
        {"type": "chat_template", "chat_template": "chatmll"},
        {"type": "chat_template", "chat_template_jinja": "{% for %}"},
        {"type": {"format": "{instructions}"}},
    ],
    ids=["type", "name", "jinja", "inline"],
)
def test_wrong_type_of_a_remote_dataset_is_found_without_the_network(
    check: Check, hub: HubServer, dataset: dict[str, Any]
) -> None:
    for base_model in ("./model", "org/model"):  # with and without a tokenizer at hand
        code, problems, _ = check(
            "--no-network", "--no-data", base_model=base_model, datasets=[{"path": "org/rows", **dataset}]
        )
        assert code == 2
        assert len(problems) == 1
        assert problems[0].startswith("cfg.yml:5: datasets.0")


def test_hub_that_takes_connections_and_never_answers_holds_nothing_up(check: Check) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began_at = time.monotonic()
        code, problems, notes = check(base_model="org/model", url=f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert (code, problems) == (0, [])
    assert notes == [
        "rows are read and rendered, not tokenised: "
        "org/model: its tokenizer is not on this machine, and the Hub does not answer",
        "not looked up on the Hub, which does not answer: org/model",
    ]
    assert time.monotonic() - began_at < 30


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The address of a file server with one file, rows.jsonl."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web/rows.jsonl").write_text('{"body": "no text"}\n')
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "web")))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_rows_behind_an_address_are_checked(check: Check, web: str) -> None:
    code, problems, notes = check(datasets=[{"path": f"{web}/rows.jsonl", "type": "completion"}])
    assert (code, notes) == (2, [])
    assert len(problems) == 1
    assert problems[0].startswith(f"{web}/rows.jsonl:1: ")


@pytest.mark.parametrize("arguments", [(), ("--no-data",)], ids=["data", "no data"])
def test_address_of_nothing_is_one_problem(check: Check, web: str, arguments: tuple[str, ...]) -> None:
    sets = [{"path": "json", "data_files": [f"{web}/rows.jsonl", f"{web}/gone.jsonl"], "type": "completion"}]
    code, problems, notes = check(*arguments, datasets=sets)
    assert (code, notes) == (2, [])
    assert problems == [f"cfg.yml:5: datasets.0.data_files.1: {web}/gone.jsonl: no such file or directory"]


def test_address_that_does_not_answer_is_told_and_no_problem(check: Check) -> None:
    datasets = [{"path": "http://127.0.0.1:9/rows.jsonl", "type": "completion"}]
    _, _, notes = check("--no-data", datasets=datasets)
    assert notes[0].startswith("not looked up: http://127.0.0.1:9/rows.jsonl: does not answer")
    code, problems, notes = check(datasets=datasets)
    assert (code, problems) == (0, [])
    assert len(notes) == 1
    assert notes[0].startswith("datasets.0: the rows are not checked: http://127.0.0.1:9/rows.jsonl: does not answer")


def test_files_too_large_to_fetch_for_a_check_are_left_and_that_is_told(check: Check, web: str, tmp_path: Path) -> None:
    with (tmp_path / "web/rows.jsonl").open("r+b") as file:
        file.truncate(MAX_FETCHED_BYTES + 1)  # a hole: it takes no room
    code, problems, notes = check(datasets=[{"path": f"{web}/rows.jsonl", "type": "completion"}])
    assert (code, problems) == (0, [])
    assert notes == [
        "datasets.0: the rows are not checked: they are 256 MiB, more than the 256 MiB that a check fetches; "
        "`ftl check --all-rows` reads them"
    ]
