"""Files behind an address: real s3fs against moto, real HTTP against a file server, hf: against our Hub."""

import os
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest
from hub_server import HubServer
from moto.server import ThreadedMotoServer
from source_worker import SourceWorker

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 with the bucket `lake`."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = _client(f"http://{host}:{port}")
    client.create_bucket(Bucket="lake")
    for key, n in (("chat/train.jsonl", 1), ("chat/test.jsonl", 2), ("one.jsonl", 3)):
        client.put_object(Bucket="lake", Key=key, Body=f'{{"n": {n}}}\n'.encode())
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module")
def worker(s3: str, hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SourceWorker]:
    home = {"HF_HOME": str(tmp_path_factory.mktemp("hf")), "HOME": str(tmp_path_factory.mktemp("home"))}
    worker = SourceWorker({"AWS_ENDPOINT_URL": s3, **KEYS, "HF_ENDPOINT": hub.url, **home})
    yield worker
    worker.close()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """The address of a file server over the directory `web`."""
    (tmp_path / "web").mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path / "web")))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def _client(url: str) -> "boto3.client":
    return boto3.client(
        "s3", endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1"
    )


def test_s3_file_and_directory_are_read(worker: SourceWorker, tmp_path: Path) -> None:
    downloads = str(tmp_path)
    assert worker.read({"path": "s3://lake/one.jsonl"}, downloads=downloads)["rows"] == [
        [0, "s3://lake/one.jsonl:1", {"n": 3}]
    ]
    assert worker.read({"path": "s3://lake/chat", "split": "test"}, downloads=downloads)["rows"] == [
        [0, "s3://lake/chat/test.jsonl:1", {"n": 2}]
    ]
    files = ["s3://lake/one.jsonl", "s3://lake/chat/train.jsonl"]
    got = worker.read({"path": "json", "data_files": files}, downloads=downloads)
    assert [row[1] for row in got["rows"]] == ["s3://lake/one.jsonl:1", "s3://lake/chat/train.jsonl:1"]


def test_s3_file_is_fetched_again_only_when_it_has_changed(worker: SourceWorker, s3: str, tmp_path: Path) -> None:
    client = _client(s3)
    client.put_object(Bucket="lake", Key="changing.jsonl", Body=b'{"n": 1}\n')

    def fetched() -> int:
        worker.read({"path": "s3://lake/changing.jsonl"}, downloads=str(tmp_path))
        return len(list(tmp_path.rglob("changing.jsonl")))

    assert [fetched(), fetched()] == [1, 1]
    client.put_object(Bucket="lake", Key="changing.jsonl", Body=b'{"n": 2}\n')
    assert fetched() == 2


@pytest.mark.parametrize("path", ["s3://lake/gone.jsonl", "s3://no-such-bucket/a.jsonl", "hf://datasets/o/r/a.jsonl"])
def test_address_of_nothing_is_one_sentence(worker: SourceWorker, path: str, tmp_path: Path) -> None:
    got = worker.read({"path": path}, downloads=str(tmp_path))
    assert got["kind"] == "ConfigError"
    assert got["refused"].startswith(f"path: {path}: no such ")
    assert got["waits"] == []


def test_s3_without_credentials_says_so(s3: str, tmp_path: Path) -> None:
    worker = SourceWorker({"AWS_ENDPOINT_URL": s3, "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)})
    got = worker.read({"path": "s3://lake/one.jsonl"}, downloads=str(tmp_path))
    worker.close()
    assert got["refused"] == "path: s3://lake/one.jsonl: no credentials are set for it"


def test_web_file_is_read_and_what_is_secret_in_its_address_not_told(
    worker: SourceWorker, web: str, tmp_path: Path
) -> None:
    (tmp_path / "web/a.jsonl").write_text('{"n": 5}\n{\n')
    got = worker.read({"path": f"http://me:pass@{web}/a.jsonl?token=hidden"}, downloads=str(tmp_path / "got"))
    assert got["rows"] == [[0, f"http://{web}/a.jsonl:1", {"n": 5}]]
    gone = worker.read({"path": f"http://me:pass@{web}/gone.jsonl?token=hidden"}, downloads=str(tmp_path / "got"))
    assert gone["refused"] == f"path: http://{web}/gone.jsonl: no such file or directory"
    told = str(got) + str(gone) + "".join(map(str, (tmp_path / "got").rglob("*")))
    assert "pass@" not in told
    assert "hidden" not in told


def test_server_that_does_not_answer_is_tried_within_the_budget(worker: SourceWorker, tmp_path: Path) -> None:
    got = worker.read({"path": "http://127.0.0.1:9/a.jsonl"}, downloads=str(tmp_path))
    assert got["kind"] == "UnreachableError"
    assert got["refused"].endswith("does not answer (ConnectionRefusedError), 3 times in 15 s; try again later")
    assert got["waits"] == [5.0, 10.0]


def test_hf_address_is_read_and_its_changes_seen(worker: SourceWorker, hub: HubServer, tmp_path: Path) -> None:
    hub.add("dataset", "org/raw", {"sub/train.jsonl": b'{"n": 1}\n'})
    path = "hf://datasets/org/raw/sub/train.jsonl"
    first = worker.read({"path": path}, downloads=str(tmp_path))
    assert first["rows"] == [[0, f"{path}:1", {"n": 1}]]
    hub.add("dataset", "org/raw", {"sub/train.jsonl": b'{"n": 2}\n'})
    assert worker.read({"path": path}, downloads=str(tmp_path))["rows"][0][2] == {"n": 2}


def test_what_a_killed_fetch_left_goes_after_a_day(worker: SourceWorker, tmp_path: Path) -> None:
    for name, hours in ((".fetch-old", 25), (".fetch-young", 23)):
        (tmp_path / name / "part").mkdir(parents=True)
        then = time.time() - hours * 3600
        os.utime(tmp_path / name, (then, then))
    worker.read({"path": "s3://lake/one.jsonl"}, downloads=str(tmp_path))
    assert [path.name for path in tmp_path.glob(".fetch-*")] == [".fetch-young"]
