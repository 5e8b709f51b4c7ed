"""What runs inside Ray: each worker starts one rank, as the supervisor does on the ordinary path.

This module travels to the workers by value, so that none of them needs to find it, and imports nothing of ours. A rank
is a process of its own: it needs the main thread for its signals, which in a worker is Ray's, and dies with the worker.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import train
from ray.train.backend import Backend, BackendConfig
from ray.train.v2.api.report_config import CheckpointUploadMode

REPORT_FD = "FTL_REPORT_FD"
"""The variable with the descriptor that a rank writes a JSON line to for every checkpoint that has been verified."""

_POLL_S = 0.2
_SIGNALS = {"signal": signal.SIGTERM, "deadline": signal.SIGUSR1}


class Desk:
    """An actor between the driver and the workers: the request to stop, and how ranks ended."""

    def __init__(self) -> None:
        self._reason: str | None = None
        self._told: list[tuple[int, bytes]] = []

    def ask_to_stop(self, reason: str) -> None:
        self._reason = reason

    def reason(self) -> str | None:
        return self._reason

    def tell(self, status: int, verdict: bytes) -> None:
        """How a rank ended: its exit status and its verdict, as ftl_runtime.verdict writes one, or nothing."""
        self._told.append((status, verdict))

    def told(self) -> list[tuple[int, bytes]]:
        """In the order in which they ended."""
        return self._told


@dataclass(frozen=True)
class Task:
    """What every worker gets."""

    desk: Any  # Any: the handle of a Desk
    job_file: str
    run_dir: str
    env: dict[str, str]
    """The ranks' environment beside that of the worker; with secrets, which Ray keeps in memory."""
    checkpoints: str
    """Below the run directory: where checkpoint-N are."""
    reported: str
    """The directory of Ray's own for this run, which it expects checkpoints in."""
    verdict_fd: str
    """The names of variables that a rank reads."""
    supervisor_pid: str


class RendezvousConfig(BackendConfig):
    """Tells the ranks where they meet; torch is left to them."""

    @property
    def backend_cls(self) -> type[Backend]:
        return RendezvousBackend


class RendezvousBackend(Backend):
    share_cuda_visible_devices = True  # a rank finds its GPU by its number among those of the machine

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:  # Any: Ray's own
        address, port = worker_group.execute_single(0, _free_address)
        worker_group.execute(_set_meeting_place, address, port)


def train_rank(task: Task) -> None:
    """Be one rank, to its end. Raises RuntimeError when it ends in any way but done or stopped."""
    if not Path(task.job_file).is_file():
        told = f"{socket.gethostname()} does not see {task.run_dir}: put it on a volume that all machines mount"
        raise FileNotFoundError(told)
    if ray.get(task.desk.reason.remote()) is not None:
        return
    pipes = [os.pipe() for _ in range(2)]
    process = _start(task, [write for _, write in pipes])
    for read, write in pipes:
        os.close(write)
        os.set_blocking(read, False)
    verdict_fd, report_fd = (read for read, _ in pipes)
    reports = _Lines(report_fd)
    is_asked = False
    while True:
        is_over = process.poll() is not None
        for line in reports.read():
            _report(line, task)
        if is_over:
            break
        reason = None if is_asked else ray.get(task.desk.reason.remote())
        if reason is not None:
            is_asked = True
            process.send_signal(_SIGNALS[reason])
        time.sleep(_POLL_S)
    ray.get(task.desk.tell.remote(process.returncode, b"".join(_available(verdict_fd))))
    if process.returncode not in (0, 75):
        raise RuntimeError(f"rank {train.get_context().get_world_rank()} ended with {process.returncode}")


def _start(task: Task, write_fds: list[int]) -> "subprocess.Popen[bytes]":
    context = train.get_context()
    number = context.get_node_rank()
    env = {
        **os.environ,
        **task.env,
        task.verdict_fd: str(write_fds[0]),
        REPORT_FD: str(write_fds[1]),
        task.supervisor_pid: str(os.getpid()),
        "PYTHONUNBUFFERED": "1",
    }
    if context.get_world_size() > 1:
        env |= {"RANK": str(context.get_world_rank()), "WORLD_SIZE": str(context.get_world_size())}
        env |= {"LOCAL_RANK": str(context.get_local_rank()), "LOCAL_WORLD_SIZE": str(context.get_local_world_size())}
    log = Path(task.run_dir) / ("log.txt" if number == 0 else f"log-{number}.txt")
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "ftl_runtime.rank", task.job_file],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            pass_fds=write_fds,
        )


def _report(line: bytes, task: Task) -> None:
    """Tell Ray of a checkpoint. All workers do so, and wait for each other; the first one brings the files."""
    import json

    metrics = json.loads(line)
    checkpoint = None
    if train.get_context().get_world_rank() == 0:
        name = f"checkpoint-{metrics['step']}"
        place = Path(task.reported) / name
        _link(Path(task.run_dir) / task.checkpoints / name, place)
        checkpoint = train.Checkpoint.from_directory(str(place))
    train.report(metrics, checkpoint=checkpoint, checkpoint_upload_mode=CheckpointUploadMode.NO_UPLOAD)


def _link(source: Path, target: Path) -> None:
    """A directory of the same files: links to them, which take no room, or copies where the file system has no links.

    Ray may drop them whenever it likes; the run's own stay.
    """
    import shutil

    def link(one: str, other: str) -> None:
        try:
            os.link(one, other)
        except OSError:
            shutil.copy2(one, other)

    if not target.exists():
        shutil.copytree(source, target, copy_function=link)


class _Lines:
    """Whole lines of a non-blocking pipe."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = b""

    def read(self) -> list[bytes]:
        *lines, self._rest = (self._rest + b"".join(_available(self._fd))).split(b"\n")
        return lines


def _available(fd: int) -> Iterator[bytes]:
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(fd, 65536):
            yield chunk


def _free_address() -> tuple[str, int]:
    with socket.socket() as probe:
        probe.bind(("", 0))
        address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        return address, int(probe.getsockname()[1])


def _set_meeting_place(address: str, port: int) -> None:
    os.environ.update(MASTER_ADDR=address, MASTER_PORT=str(port))
