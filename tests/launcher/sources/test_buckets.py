"""Buckets that a run is to be sent to, asked with the real clients: moto, a GCS emulator, a server that refuses."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from store_place import gs_env, s3_client, s3_env

from ftl import precheck
from ftl.cloud import CloudSection
from ftl.contract import UrlRef

REFUSAL = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
Problems = Callable[..., list[str]]


@pytest.fixture
def problems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Problems:
    """What is told of a store before a job starts. Nothing of this machine's own credentials counts."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)

    def told(url: str, env: dict[str, str], *, secrets: tuple[str, ...] = ()) -> list[str]:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        found = precheck.store_problems((UrlRef(url=url),), CloudSection(provider="skypilot", secrets=secrets))
        return [str(problem) for problem in found]

    return told


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 with the bucket `lake`."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    s3_client(url).create_bucket(Bucket="lake")
    yield url
    server.stop()


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    """The address of an S3 that lets nobody in."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(403)
            self.end_headers()
            self.wfile.write(REFUSAL)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_bucket_that_is_there_is_no_problem(problems: Problems, s3: str) -> None:
    assert problems("s3://lake/runs", s3_env(s3)) == []


def test_bucket_that_is_not_there_is_one_sentence_with_the_key(problems: Problems, s3: str) -> None:
    sentence = "checkpoints: s3://lakes/runs: there is no bucket 'lakes'; make it, or name another one"
    assert problems("s3://lakes/runs", s3_env(s3)) == [sentence]


def test_refusal_counts_where_the_job_has_the_same_credentials(problems: Problems, refusing: str) -> None:
    assert problems("s3://lake/runs", s3_env(refusing)) == []
    (told,) = problems("s3://lake/runs", s3_env(refusing), secrets=("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    assert told.startswith(
        "checkpoints: s3://lake/runs: the credentials of this shell, which the job gets, may not list"
    )


def test_bucket_of_google_is_asked_for_too(problems: Problems) -> None:
    emulator = pytest.importorskip("gcp_storage_emulator.server")
    server = emulator.create_server("127.0.0.1", 0, in_memory=True, default_bucket="lake")
    server.start()
    try:
        env = gs_env("http://{}:{}".format(*server._api._httpd.server_address))
        assert problems("gs://lake/runs", env) == []
        (told,) = problems("gs://lakes/runs", env)
        assert told.startswith("checkpoints: gs://lakes/runs: there is no bucket 'lakes'")
    finally:
        server.stop()


@pytest.mark.parametrize("url", ["s3://lakes/runs", "gs://lakes/runs"])
def test_nobody_is_asked_without_credentials(problems: Problems, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr("socket.socket.connect", asked)
    assert problems(url, {}) == []


def test_store_that_does_not_answer_says_nothing_of_its_bucket(problems: Problems) -> None:
    assert problems("s3://lakes/runs", s3_env("http://127.0.0.1:9")) == []
