"""Base models from a Hub on loopback, by the real client in a process of its own."""

import json
from collections.abc import Iterator

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from hub_server import HubServer  # noqa: E402
from model_worker import ModelWorker  # noqa: E402

FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "tokenizer.model": b"x",
    "model-00001-of-00001.safetensors": b"weights",
    "model.safetensors.index.json": b"{}",
    "consolidated.safetensors": b"the same weights in another form",
    "pytorch_model.bin": b"a pickle",
    "modeling_own.py": b"import os",
    "README.md": b"# it",
    "original/consolidated.00.pth": b"a pickle",
}


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def hub(server):
    server.repositories.clear()
    server.heal()
    return server


@pytest.fixture(scope="module")
def worker(server, tmp_path_factory) -> Iterator[ModelWorker]:
    worker = ModelWorker({"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path_factory.mktemp("hf"))})
    yield worker
    worker.close()


def test_only_what_a_training_reads_is_downloaded(hub, worker):
    commit = hub.add("model", "org/base", FILES)
    found = worker.fetch(base="org/base")
    assert found["files"] == [
        *("config.json", "model-00001-of-00001.safetensors", "model.safetensors.index.json"),
        *("tokenizer.json", "tokenizer.model"),
    ]
    assert found["revision"] == commit
    assert found["told"][-1] == 1.0


def test_code_of_the_repository_comes_only_where_it_is_trusted(hub, worker):
    commit = hub.add("model", "org/code", FILES)
    assert "modeling_own.py" not in worker.fetch(base="org/code", revision=commit)["files"]
    assert "modeling_own.py" in worker.fetch(base="org/code", revision=commit, trust_remote_code=True)["files"]


@pytest.mark.parametrize("revision", [None, "main"])
def test_code_at_no_commit_is_refused_with_the_one_that_it_is_today(hub, worker, revision):
    commit = hub.add("model", "org/code", FILES)
    refused = worker.fetch(base="org/code", revision=revision, trust_remote_code=True)
    assert refused["refused"] == (
        "trust_remote_code: runs code of org/code, which is pinned to no commit; once you have read it, write "
        f"`model_revision: {commit}`, which it is today"
    )


def test_code_comes_of_no_repository_but_the_base(hub, worker):
    commit = hub.add("model", "org/code", FILES)
    hub.add("model", "org/tokens", {"tokenizer_config.json": b"{}", "tokenization_own.py": b"raise SystemExit"})
    trusting = {"base": "org/code", "revision": commit, "trust_remote_code": True}
    assert worker.fetch(**trusting, tokenizer="org/tokens")["tokenizer_files"] == ["tokenizer_config.json"]
    elsewhere = {"auto_map": {"AutoTokenizer": [None, "evil/repo--tokenization_own.Own"]}}
    hub.add("model", "org/elsewhere", {"tokenizer_config.json": json.dumps(elsewhere).encode()})
    told = worker.fetch(**trusting, tokenizer="org/elsewhere")["refused"]
    assert "takes code of the repository evil/repo, which is pinned to no commit" in told
    assert "files" in worker.fetch(**trusting | {"trust_remote_code": False}, tokenizer="org/elsewhere")


def test_weights_under_another_name_are_taken_where_there_are_no_others(hub, worker):
    hub.add("model", "org/other", {"config.json": b"{}", "consolidated.safetensors": b"w"})
    assert worker.fetch(base="org/other")["files"] == ["config.json", "consolidated.safetensors"]


def test_ignored_patterns_are_left_where_they_are(hub, worker):
    hub.add("model", "org/ignored", FILES)
    found = worker.fetch(base="org/ignored", ignore_patterns=["*.model", "tokenizer*"])
    assert [name for name in found["files"] if name.startswith("tokenizer")] == []
    refused = worker.fetch(base="org/ignored", ignore_patterns=["*.safetensors"])
    assert refused["refused"] == "base_model_ignore_patterns: leaves out every *.safetensors of org/ignored"


def test_preparing_data_downloads_no_weights(hub, worker):
    hub.add("model", "org/data", FILES)
    assert not any(name.endswith(".safetensors") for name in worker.fetch(base="org/data", wanted="tokenizer")["files"])


def test_revision_is_resolved_to_its_commit(hub, worker):
    old = hub.add("model", "org/moved", {**FILES, "config.json": b'{"old": 1}'}, branch="v1")
    new = hub.add("model", "org/moved", FILES)
    assert worker.fetch(base="org/moved", revision="v1")["revision"] == old
    assert worker.fetch(base="org/moved")["revision"] == new


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b"x"}, "has only pytorch_model.bin, a pickle"),
        ({"config.json": b"{}"}, "has no *.safetensors weights; to start from random weights set reinit_weights: true"),
    ],
    ids=["pickle", "nothing"],
)
def test_repository_without_safe_weights_is_refused_before_anything_is_downloaded(hub, worker, files, sentence):
    hub.add("model", "org/unsafe", files)
    found = worker.fetch(base="org/unsafe")
    assert sentence in found["refused"]
    assert not any("/resolve/" in request.path for request in hub.requests)


def test_missing_gated_and_unknown_are_one_sentence_each(hub, worker):
    hub.add("model", "org/gated", FILES, is_gated=True)
    assert worker.fetch(base="org/none")["refused"].startswith(
        "base_model: org/none: no such model on the Hub, or it is private"
    )
    assert worker.fetch(base="org/gated")["refused"].startswith("base_model: org/gated: is gated")
    hub.add("model", "org/there", FILES)
    assert worker.fetch(base="org/there", revision="nope")["refused"].startswith(
        "model_revision: nope: is no branch, tag or commit of org/there"
    )


def test_passing_failure_is_tried_again(hub, worker):
    hub.add("model", "org/busy", FILES)
    hub.fail(503, times=1, path="/tree/")
    found = worker.fetch(base="org/busy")
    assert "config.json" in found["files"]
    assert found["waits"]


def test_what_is_here_serves_without_the_network(hub, worker):
    hub.add("model", "org/kept", FILES)
    first = worker.fetch(base="org/kept")
    hub.fail(503, times=1000)
    assert worker.fetch(base="org/kept", revision=first["revision"])["directory"] == first["directory"]
    hub.heal()
