"""Trainer processes: one plain process, or one a GPU.

Ranks are started directly, with the variables torchrun would set, because torchrun kills its workers 30 s after a
SIGTERM whatever grace the job has, and stands between the supervisor and the ranks it must signal.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

from ftl.contract import JobSpec
from ftl_runtime.rendezvous import Rendezvous
from ftl_runtime.stop import STOP_SIGNALS

SUPERVISOR_PID = "FTL_SUPERVISOR_PID"
"""The variable with the process a rank must not outlive."""


def num_ranks(job: JobSpec) -> int:
    """Processes to start for what the job asks of the machine; whether it has them is preflight's question."""
    gpus = job.resources.gpus
    if job.task != "train":
        return 1
    if not gpus:
        return job.resources.processes
    if gpus == "all":
        return max(1, _num_visible_gpus())
    return gpus if isinstance(gpus, int) else len(gpus)


class Trainers:
    """The ranks of one attempt, as one thing to signal, poll and kill."""

    def __init__(
        self,
        job_file: Path,
        ranks: int,
        place: Rendezvous,
        env: dict[str, str],
        log_fd: int,
        keep_fds: tuple[int, ...],
    ) -> None:
        """Start those of this machine. They append to `log_fd` and hold `keep_fds` open until the last is gone."""
        num_all = ranks * place.num_nodes
        shared = {**env, SUPERVISOR_PID: str(os.getpid()), "PYTHONUNBUFFERED": "1"}
        if num_all > 1:
            shared |= {"WORLD_SIZE": str(num_all), "LOCAL_WORLD_SIZE": str(ranks)}
            shared |= {"MASTER_ADDR": place.address, "MASTER_PORT": str(place.port or _free_port())}
        # A signal that comes before the new process has its handlers would end it without a word: it inherits the
        # mask, and takes the signals in when it is ready.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            self._processes = [
                self._start(job_file, rank, place.node * ranks + rank, num_all, shared, log_fd, keep_fds)
                for rank in range(ranks)
            ]
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _start(
        self,
        job_file: Path,
        rank_here: int,
        rank: int,
        num_all: int,
        env: dict[str, str],
        log_fd: int,
        keep_fds: tuple[int, ...],
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "ftl_runtime.rank", str(job_file)],
            env=env | ({"RANK": str(rank), "LOCAL_RANK": str(rank_here)} if num_all > 1 else {}),
            stdin=subprocess.DEVNULL,
            stdout=log_fd,
            stderr=log_fd,
            pass_fds=keep_fds,
        )

    def poll(self) -> list[int | None]:
        """Exit status of each rank, None while it lives; negative is the number of the signal that killed it."""
        return [process.poll() for process in self._processes]

    def signal(self, number: int) -> None:
        for process in self._processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(number)

    def kill(self) -> None:
        for process in self._processes:
            process.kill()

    def wait(self) -> None:
        for process in self._processes:
            process.wait()


def _num_visible_gpus() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    devices = Path("/dev")
    return sum(re.fullmatch(r"nvidia\d+", entry.name) is not None for entry in devices.iterdir())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
