"""Copies what is appended to a log file to a descriptor, without ever waiting for its reader."""

import contextlib
import os
import select
import time
from pathlib import Path

_CHUNK = 4096  # at most PIPE_BUF, so that a pipe which select calls writable takes it without blocking
_FLUSH_S = 2.0


class Relay:
    """From the end of the file at construction. A reader that is gone is forgotten; one that stalls loses nothing
    but the tail that is left when the attempt ends."""

    def __init__(self, log: Path, out_fd: int) -> None:
        self._source = os.open(log, os.O_RDONLY | os.O_CLOEXEC)
        self._offset = os.fstat(self._source).st_size
        self._out: int | None = out_fd
        self._pending = b""
        source, target = os.fstat(self._source), os.fstat(out_fd)
        if (source.st_dev, source.st_ino) == (target.st_dev, target.st_ino):
            self._out = None  # a backend that sends our output to the log itself: copying would never end

    def turn(self) -> bool:
        """Copy what can be copied at once; gives whether more is left."""
        while self._out is not None:
            if not self._pending:
                self._pending = os.pread(self._source, _CHUNK, self._offset)
                self._offset += len(self._pending)
            if not self._pending:
                return False
            if not select.select([], [self._out], [], 0)[1]:
                return True
            try:
                self._pending = self._pending[os.write(self._out, self._pending) :]
            except BlockingIOError:
                return True
            except OSError:
                self._out = None
        return False

    def finish(self) -> None:
        """Copy the rest, for a bounded time."""
        until = time.monotonic() + _FLUSH_S
        with contextlib.suppress(OSError):
            while self.turn() and time.monotonic() < until:
                time.sleep(0.01)
