"""The bound on what a run sends: kept over all its stores together, through the real clients."""

import base64
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fault_proxy import FaultProxy
from hub_server import HubServer
from store_place import gs_env, s3_env

from ftl.contract import HubRef, JobSpec, Paths, StoreRef, UrlRef
from ftl.errors import ConfigError
from ftl_runtime.checkpoint import bandwidth, manifest
from ftl_runtime.checkpoint.bandwidth import Rate
from ftl_runtime.checkpoint.bucket import BucketStore
from ftl_runtime.checkpoint.store import Checkpoint
from ftl_runtime.checkpoint.uploadproxy import UploadProxy

MB = 1_000_000


def checkpoint(root: Path, num_bytes: int) -> Path:
    path = root / "checkpoint-5"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(os.urandom(num_bytes))
    manifest.seal(path, run_id="run-a", step=5)
    return path


def test_all_stores_together_get_no_more_than_the_rate(hub: HubServer, s3: str, gs: str, tmp_path: Path) -> None:
    """The process that sends a run, as the supervisor starts it: 1 MB to each of three services at 1 MB/s."""
    made = checkpoint(tmp_path / "run/checkpoints", MB)
    with FaultProxy(s3) as s3_proxy, FaultProxy(gs) as gs_proxy:
        stores: tuple[StoreRef, ...] = (
            HubRef(repo="ann/bounded"),
            UrlRef(url="s3://lake/bounded"),
            UrlRef(url="gs://lake/bounded"),
        )
        paths = Paths(bundle="/nowhere", run=str(tmp_path / "run"), cache="/nowhere")
        job = JobSpec(run_id="run-a", stores=stores, paths=paths, max_upload_mb_per_s=1.0)
        (tmp_path / "job.json").write_text(job.model_dump_json())
        hf = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_ann", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
        path = os.pathsep.join(entry for entry in sys.path if entry)
        done = subprocess.run(
            [sys.executable, "-m", "ftl_runtime.checkpoint.sync", str(tmp_path / "job.json")],
            env={**os.environ, **hf, **s3_env(s3_proxy.url), **gs_env(gs_proxy.url), "PYTHONPATH": path},
            input="finish checkpoints\n",
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert json.loads(done.stdout) == {"undelivered": None, "superseded": None}, done.stderr
        received = [body for server in (hub, s3_proxy, gs_proxy) for body in server.received]
    assert sum(size for _, _, size in received) > 3 * MB
    seconds = max(end for _, end, _ in received) - min(start for start, _, _ in received)
    assert sum(size for _, _, size in received) < 1.05 * MB * seconds + 0.5 * MB
    events = [json.loads(line) for line in (tmp_path / "run/events.jsonl").read_text().splitlines()]
    pushed = {line["data"]["store"] for line in events if line["event"] == "checkpoint"}
    assert pushed == {"hf://ann/bounded", "s3://lake/bounded/run-a", "gs://lake/bounded/run-a"}
    sent = hub.repositories["model", "ann/bounded"].files["checkpoints/run-a/checkpoint-5/model.safetensors"]
    assert sent == (made / "model.safetensors").read_bytes()


class Clock:
    """Time that goes on only while somebody waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 50.0
        monkeypatch.setattr(bandwidth, "monotonic", lambda: self.now)
        monkeypatch.setattr(bandwidth, "sleep", self.wait)

    def wait(self, seconds: float) -> None:
        self.now += seconds


def test_copy_to_a_directory_keeps_to_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    made = checkpoint(tmp_path / "run", 2 * MB)
    store = BucketStore(UrlRef(url=f"file://{tmp_path}/bucket"), "run-a", Rate(0.5 * MB))
    store.claim("1-a")
    store.put(Checkpoint(5, made), [], lambda done, total: None)
    assert clock.now - 50 == pytest.approx(4.0, abs=0.2)
    manifest.check(tmp_path / "bucket/run-a/checkpoint-5", run_id="run-a", step=5)


def test_rate_saves_up_a_tenth_of_a_second_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    rate = Rate(1000)
    clock.wait(60)
    for _ in range(11):
        rate.take(100)
    assert clock.now - 110 == pytest.approx(0.9)


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets of its first client."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            client, _ = server.accept()
            with client:
                while data := client.recv(1000):
                    client.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


def ask(proxy: UploadProxy, target: str, password: str) -> socket.socket:
    """A tunnel through the proxy; its first answer is read by `answer`."""
    parts = urlsplit(proxy.url)
    client = socket.create_connection((str(parts.hostname), int(parts.port or 0)), 20)
    token = base64.b64encode(f"ftl:{password}".encode()).decode()
    client.sendall(
        f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nProxy-Authorization: Basic {token}\r\n\r\n".encode()
    )
    return client


def started(env: dict[str, str]) -> tuple[UploadProxy, list[int]]:
    paid: list[int] = []
    proxy = UploadProxy(paid.append, 1000, env)
    proxy.start()
    return proxy, paid


def test_tunnel_pays_for_what_goes_out_and_needs_the_password(echo: int) -> None:
    proxy, paid = started({})
    with ask(proxy, f"127.0.0.1:{echo}", "wrong") as client:
        assert client.recv(1000).startswith(b"HTTP/1.1 407 ")
    with ask(proxy, f"127.0.0.1:{echo}", str(urlsplit(proxy.url).password)) as client:
        assert client.recv(1000) == b"HTTP/1.1 200 Connection established\r\n\r\n"
        client.sendall(b"x" * 5000)
        got = b""
        while len(got) < 5000 and (more := client.recv(10_000)):
            got += more
    assert got == b"x" * 5000
    assert sum(paid) == 5000
    assert max(paid) <= 1000


@pytest.mark.parametrize("is_exempt", [False, True], ids=["asked in turn", "not meant for the host"])
def test_proxy_of_the_environment_is_asked_in_turn(echo: int, is_exempt: bool) -> None:
    other, seen = started({})
    proxy, _ = started({"HTTPS_PROXY": other.url, "no_proxy": "127.0.0.1" if is_exempt else "example.com"})
    with ask(proxy, f"127.0.0.1:{echo}", str(urlsplit(proxy.url).password)) as client:
        assert client.recv(1000) == b"HTTP/1.1 200 Connection established\r\n\r\n"
        client.sendall(b"hello")
        assert client.recv(1000) == b"hello"
    assert sum(seen) == (0 if is_exempt else 5)


def test_proxy_that_is_not_asked_by_http_is_refused_in_a_sentence() -> None:
    with pytest.raises(
        ConfigError, match="max_upload_mb_per_s: the proxy of the environment is asked by socks5, not by"
    ):
        UploadProxy(lambda num_bytes: None, 1000, {"ALL_PROXY": "socks5://127.0.0.1:1080"})


def test_environment_of_the_clients_names_the_proxy_alone() -> None:
    env = {"NO_PROXY": "localhost", "no_proxy": "localhost"}
    bandwidth.bound_uploads(100.0, env)
    assert "NO_PROXY" not in env and "no_proxy" not in env
    assert len({env[name] for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY")}) == 1
    assert env["http_proxy"].startswith("http://ftl:")
