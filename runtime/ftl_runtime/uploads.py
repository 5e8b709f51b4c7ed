"""The process that sends a run to its stores, as the supervisor sees it: started, asked to finish, waited for."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ftl_runtime.checkpoint.sync import Ending
from ftl_runtime.runlog import RunLog

_POLL_S = 0.05
_RESTARTS = 3


class Uploads:
    """One process of ftl_runtime.checkpoint.sync, started again when it dies by itself."""

    def __init__(self, job_file: Path, env: dict[str, str], log: RunLog) -> None:
        self._job_file, self._env, self._log = job_file.absolute(), env, log
        self._process = self._start()
        self._restarts = 0
        self._order: bytes | None = None
        self._ending: Ending | None = None

    def _start(self) -> subprocess.Popen[bytes]:
        log_fd = self._log.pipe()
        try:
            return subprocess.Popen(
                [sys.executable, "-m", "ftl_runtime.checkpoint.sync", str(self._job_file)],
                env=self._env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_fd,
                start_new_session=True,  # signals to the whole group are not for it
            )
        finally:
            os.close(log_fd)

    @property
    def superseded(self) -> str | None:
        """A later attempt of the run has taken over: the sentence about it."""
        ending = self._poll()
        return ending.superseded if ending else None

    def finish(self, *, has_output: bool, must_end: Callable[[], str | None]) -> Ending:
        """Have it send what is left and wait for it, until `must_end` gives a reason not to: then it is killed, and
        what was not sent stays here."""
        self._order = b"finish output\n" if has_output else b"finish checkpoints\n"
        self._tell()
        while (ending := self._poll()) is None:
            if reason := must_end():
                return self._kill(reason)
            time.sleep(_POLL_S)
        return ending

    def _kill(self, reason: str) -> Ending:
        self._process.kill()
        self._process.wait()
        return Ending(undelivered=reason)

    def _tell(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            if self._order is not None:
                self._process.stdin.write(self._order)
            self._process.stdin.flush()

    def _poll(self) -> Ending | None:
        """How it has ended; None while it is at work."""
        if self._ending is None and self._process.poll() is not None:
            assert self._process.stdout is not None
            self._ending = _ending(self._process.stdout)
            if self._ending is None and self._restarts < _RESTARTS:
                self._restarts += 1
                self._process = self._start()
                self._tell()
            elif self._ending is None:
                self._ending = Ending(
                    undelivered="the process that sends it keeps dying; its last words are in log.txt"
                )
        return self._ending


def _ending(stdout: IO[bytes]) -> Ending | None:
    """What it said last; None where it died without a word."""
    os.set_blocking(stdout.fileno(), True)
    try:
        record = json.loads(stdout.read())
        return Ending(record["undelivered"], record["superseded"])
    except (ValueError, KeyError, TypeError):
        return None
