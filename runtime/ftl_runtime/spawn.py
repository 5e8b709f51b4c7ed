"""Trainer processes: one plain process, or one a GPU.

Ranks are started directly, with the variables torchrun would set, because torchrun kills its workers 30 s after a
SIGTERM whatever grace the job has, and stands between the supervisor and the ranks it must signal.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from ftl.contract import JobSpec
from ftl.errors import BackendError
from ftl_runtime.leftovers import end_session
from ftl_runtime.rendezvous import Rendezvous, free_port
from ftl_runtime.runlog import RunLog
from ftl_runtime.stop import STOP_SIGNALS

_RAY_DRIVER = "ftl_runtime.parallel.raydriver"
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


def default_env(*, has_gpu: bool) -> dict[str, str]:
    """What ranks need in their environment, unless the user says otherwise."""
    env = {"HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "true", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    if not has_gpu:
        # Threads that wait for work by spinning take the cores from those that have it: on two cores shared with other
        # work, training was six times slower. Sleeping at once costs a quiet machine a third: so they spin a little.
        env |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "3000"}
    return env


class Trainers:
    """The ranks of one attempt, as one thing to signal, poll and kill."""

    def __init__(
        self,
        job_file: Path,
        ranks: int,
        place: Rendezvous,
        env: dict[str, str],
        log: RunLog,
        keep_fds: tuple[int, ...],
        module: str = "ftl_runtime.rank",
        has_own_session: bool = False,
    ) -> None:
        """Start those of this machine. They write to `log` and hold `keep_fds` open until the last is gone.

        `module` is what each of them runs. With `has_own_session`, `end_leftovers` ends what they started in turn.
        """
        self._module = module
        self._has_own_session = has_own_session
        num_all = ranks * place.num_nodes
        shared = {**env, SUPERVISOR_PID: str(os.getpid()), "PYTHONUNBUFFERED": "1"}
        if num_all > 1:
            shared |= {"WORLD_SIZE": str(num_all), "LOCAL_WORLD_SIZE": str(ranks)}
            shared |= {"MASTER_ADDR": place.address, "MASTER_PORT": str(place.port or free_port())}
        # A signal that comes before the new process has its handlers would end it without a word: it inherits the
        # mask, and takes the signals in when it is ready.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            self._processes = [
                self._start(job_file, rank, place.node * ranks + rank, num_all, shared, log, keep_fds)
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
        log: RunLog,
        keep_fds: tuple[int, ...],
    ) -> subprocess.Popen[bytes]:
        log_fd = log.pipe()
        try:
            return subprocess.Popen(
                [sys.executable, "-m", self._module, str(job_file)],
                env=env | ({"RANK": str(rank), "LOCAL_RANK": str(rank_here)} if num_all > 1 else {}),
                stdin=subprocess.DEVNULL,
                stdout=log_fd,
                stderr=log_fd,
                pass_fds=keep_fds,
                start_new_session=self._has_own_session,
            )
        finally:
            os.close(log_fd)

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

    def end_leftovers(self) -> None:
        """End what trainers that are gone have left behind; Ray's processes outlive a killed driver by a minute."""
        if self._has_own_session:
            for process in self._processes:
                end_session(process.pid)


def ray_driver(
    job_file: Path, place: Rendezvous, env: dict[str, str], log: RunLog, keep_fds: tuple[int, ...]
) -> Trainers:
    """The one process that has Ray start the ranks, in place of them. Raises BackendError on several machines."""
    if place.num_nodes > 1:
        raise BackendError(
            f"use_ray: the Ray cluster knows its machines, and this job was started on {place.num_nodes} of them; "
            "start it on one, with RAY_ADDRESS naming the cluster"
        )
    return Trainers(job_file, 1, place, env, log, keep_fds, module=_RAY_DRIVER, has_own_session=True)


def _num_visible_gpus() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([device for device in visible.split(",") if device.strip() not in ("", "-1")])
    devices = Path("/dev")
    return sum(re.fullmatch(r"nvidia\d+", entry.name) is not None for entry in devices.iterdir())
