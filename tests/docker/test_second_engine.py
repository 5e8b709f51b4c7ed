"""What can only be seen on an engine of one's own: a GPU hook in its PATH, its death, its full disk.

The engine lives in its own network namespace, on a small disk image: started in the machine's own namespace it would
take the first engine's bridge away.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from docker_places import BASE, DEBIAN_CLIENT, Make, Workplace, ended, facts, started, unavailable

from ftl.errors import BackendError, StorageError

if TYPE_CHECKING:
    from docker import DockerClient

HOOK = """#!/bin/sh
echo "$@" >> {log}
exec cat > /dev/null
"""


class SecondEngine:
    """A dockerd of our own; `image` is in it and has a `python`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.hook_log = folder / "hook.log"
        self.host = f"unix://{folder}/docker.sock"
        self.image = ""
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        disk = self.folder / "disk.img"
        self.data.mkdir()
        subprocess.run(["truncate", "-s", "700M", disk], check=True)
        subprocess.run(["mkfs.ext4", "-q", disk], check=True)
        subprocess.run(["mount", "-o", "loop", disk, self.data], check=True)
        hook = self.folder / "bin" / "nvidia-container-runtime-hook"
        hook.parent.mkdir()
        hook.write_text(HOOK.format(log=self.hook_log))
        hook.chmod(0o755)

    def start(self) -> None:
        environment = {**os.environ, "PATH": f"{self.folder}/bin:{os.environ['PATH']}"}
        command = [
            "unshare",
            "-n",
            "dockerd",
            "-H",
            self.host,
            "--live-restore",
            "--iptables=false",
            "--ip6tables=false",
        ]
        command += [f"--data-root={self.data}", f"--exec-root={self.folder}/exec", f"--pidfile={self.folder}/pid"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        deadline = time.monotonic() + 60
        while self.cli("info", check=False).returncode != 0:
            assert time.monotonic() < deadline and self._process.poll() is None, (self.folder / "log").read_text()[
                -2000:
            ]
            time.sleep(0.2)

    def kill(self) -> None:
        """SIGKILL to the daemon, then to its containerd, without which it would not start again."""
        assert self._process is not None
        containerd = self.folder / "exec/containerd/containerd.pid"
        self._process.kill()
        self._process.wait()
        if containerd.exists():
            with suppress(ProcessLookupError):
                os.kill(int(containerd.read_text()), signal.SIGKILL)
            containerd.unlink()
        (self.folder / "pid").unlink(missing_ok=True)

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([DEBIAN_CLIENT, "-H", self.host, *arguments], capture_output=True, check=check)

    def load(self, tag: str) -> None:
        with subprocess.Popen([DEBIAN_CLIENT, "save", tag], stdout=subprocess.PIPE) as saved:
            subprocess.run(
                [DEBIAN_CLIENT, "-H", self.host, "load"], stdin=saved.stdout, capture_output=True, check=True
            )
        self.image = self.cli("image", "inspect", "--format={{.Id}}", tag).stdout.decode().strip()

    def stop(self) -> None:
        for container in self.cli("ps", "-aq", check=False).stdout.decode().split():
            self.cli("rm", "-f", container, check=False)
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
        for _ in range(50):
            if subprocess.run(["umount", self.data], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.2)


@pytest.fixture(scope="module")
def second_engine(engine: "DockerClient", tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecondEngine]:
    missing = [tool for tool in ("dockerd", "unshare", "mkfs.ext4", "mount") if shutil.which(tool) is None]
    if os.getuid() != 0 or missing:
        unavailable(f"a second engine needs root and {', '.join(missing) or 'nothing else'}")
    folder = Path("/var/tmp") / f"ftl-second-{os.getpid()}"
    folder.mkdir()
    context = tmp_path_factory.mktemp("small")
    (context / "Dockerfile").write_text(
        f"FROM {BASE}\nRUN ln -s python3 /usr/bin/python && mkdir -p /ftl/cache/hf && chmod -R 1777 /ftl\n"
    )
    subprocess.run([DEBIAN_CLIENT, "build", "-q", "-t", "ftl-test/small:1", context], check=True, capture_output=True)
    second = SecondEngine(folder)
    try:
        second.prepare()
        second.start()
        second.load("ftl-test/small:1")
        yield second
    finally:
        second.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def second(second_engine: SecondEngine, monkeypatch: pytest.MonkeyPatch) -> SecondEngine:
    monkeypatch.setenv("DOCKER_HOST", second_engine.host)
    return second_engine


@pytest.mark.parametrize(
    "asked, visible", [("all", "all"), (["0", "2"], "0,2"), (1, "0")], ids=["all", "ids", "a count"]
)
def test_gpus_reach_the_container(
    second: SecondEngine, workplace: Workplace, make_backend: Make, asked: object, visible: str
) -> None:
    second.hook_log.unlink(missing_ok=True)
    backend = make_backend(image=second.image, gpu=asked)
    assert backend.preflight(workplace.spec(backend)) == []
    handle = backend.submit(workplace.spec(backend), workplace.bundle, workplace.run_dir)
    assert ended(backend, handle).cause == "done"
    environment = facts(workplace)["env"]
    assert isinstance(environment, dict)
    assert environment["NVIDIA_VISIBLE_DEVICES"] == visible
    assert environment["NVIDIA_DRIVER_CAPABILITIES"] == "compute,utility"
    assert "prestart" in second.hook_log.read_text()


def test_limits_are_raised_for_gpus_or_given_up_with_a_warning(
    second: SecondEngine, workplace: Workplace, make_backend: Make, caplog: pytest.LogCaptureFixture
) -> None:
    backend = make_backend(image=second.image, gpu="all")
    handle = backend.submit(workplace.spec(backend), workplace.bundle, workplace.run_dir)
    limits = second.cli("inspect", "--format={{.HostConfig.Ulimits}}", str(handle.ref["container"])).stdout
    assert (b"memlock" in limits) != ("may not raise the memlock" in caplog.text)


def test_killed_engine_is_one_sentence_and_the_job_goes_on(
    second: SecondEngine, workplace: Workplace, make_backend: Make
) -> None:
    backend = make_backend(image=second.image)
    handle = backend.submit(workplace.spec(backend, mode="wait"), workplace.bundle, workplace.run_dir)
    started(backend, handle)
    second.kill()
    gone = "no Docker engine is running|the Docker engine went away"
    for call in (
        lambda: backend.status(handle),
        lambda: backend.cancel(handle),
        lambda: backend.submit(workplace.spec(backend), workplace.bundle, workplace.run_dir),
    ):
        with pytest.raises(BackendError, match=gone):
            call()
    assert b"phase" in backend.read(handle, "events.jsonl", 0)
    second.start()
    assert backend.status(handle).phase == "running"
    backend.cancel(handle)
    assert ended(backend, handle).cause == "signal"


def test_full_disk_of_the_engine_is_one_sentence_and_leaves_nothing(
    second: SecondEngine, workplace: Workplace, make_backend: Make
) -> None:
    backend = make_backend(image=second.image)
    filler = second.data / "filler"
    free = shutil.disk_usage(second.data).free
    subprocess.run(["fallocate", "-l", str(free - 8192), filler], check=True)
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}.2", "bs=4k"], check=False, capture_output=True)
    try:
        with pytest.raises(StorageError, match="the engine's disk is full"):
            backend.submit(workplace.spec(backend), workplace.bundle, workplace.run_dir)
    finally:
        for file in second.data.glob("filler*"):
            file.unlink()
    listed = second.cli("ps", "-aq", "--filter", f"label=io.ftl.run={workplace.run_id}")
    assert listed.stdout == b""
    handle = backend.submit(workplace.spec(backend), workplace.bundle, workplace.run_dir)
    assert ended(backend, handle).cause == "done"
