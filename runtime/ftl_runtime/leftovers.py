"""Processes that outlive those that started them."""

import contextlib
import os
import signal
import time
from pathlib import Path

_PATIENCE_S = 10.0
_POLL_S = 0.02


def end_session(leader: int) -> None:
    """Kill every process of the session that `leader` began; return when none is left. Takes seconds at most.

    On Linux, where /proc tells.
    """
    give_up = time.monotonic() + _PATIENCE_S
    while (left := _members(leader)) and time.monotonic() < give_up:
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(_POLL_S)


def _members(leader: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # "PID (name) state parent group session ...", and a name may hold anything
            state, _, _, session = entry.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                found.append(int(entry.parent.name))
    return found
