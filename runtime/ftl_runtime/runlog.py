"""log.txt of one machine. The supervisor alone writes it, so that no secret gets there whoever tells it.

Each process that it starts writes, with all its children, into a pipe of its own: not Python alone, but native
libraries, crash reports and whatever programs they run. A thread brings to the file what comes through, line by line,
with *** in the place of secrets, and keeps the end of a line back until it is known whether a secret begins there.

A trainer is never stopped by its log: what a full disk does not take is left out, and counted. What a killed trainer
has written is in the pipe, and so in the file; only a supervisor that is killed itself takes along what came in its
last moment, and its trainers with it.
"""

import contextlib
import fcntl
import os
import selectors
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock, Thread

from ftl.redact import redacted, settled, settled_words

_PAUSE_S = 0.05
"""Between two looks, so that a trainer that writes many small pieces costs little."""
_IDLE_S = 1.0
"""After so long without more the words of an unfinished line are shown, such as those of a progress bar."""
_DRAIN_S = 5.0
_PIPE_BYTES = 1 << 20
_MAX_PENDING = 1 << 16


class RunLog:
    """The file, and the pipes that lead to it."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when the file cannot be opened."""
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._pipes = selectors.DefaultSelector()
        self._lock = Lock()
        self._lost = 0
        self._thread: Thread | None = None

    def pipe(self) -> int:
        """The writing end of a fresh pipe, for one process; to be closed here once that has it."""
        read_fd, write_fd = os.pipe()
        os.set_blocking(read_fd, False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):  # more than this user may have: the smaller one does, too
                fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        with self._lock:
            self._pipes.register(read_fd, selectors.EVENT_READ, _Stream(read_fd))
        if self._thread is None:
            self._thread = Thread(target=self._copy, name="log", daemon=True)
            self._thread.start()
        return write_fd

    def write(self, line: str) -> None:
        """A line of the supervisor's own."""
        with self._lock:
            self._append(f"{redacted(line)}\n")

    def end(self, num_bytes: int) -> str:
        """The last lines that are in the file."""
        try:
            with self._path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - num_bytes))
                return file.read(num_bytes).decode(errors="replace")
        except OSError:
            return ""

    def drain(self) -> None:
        """Have all that was written into the pipes until now in the file, but for the last words of lines that may go
        on: a process that is gone writes no more, one that lives may be in the middle of a secret.

        Takes seconds at most, whoever goes on writing.
        """
        until = time.monotonic() + _DRAIN_S
        with self._lock:
            for stream in self._streams():
                while time.monotonic() < until and self._take(stream):
                    pass
                self._append(stream.words())

    def close(self) -> None:
        """As `drain`, with those words: the end of the log."""
        self.drain()
        with self._lock:
            for stream in self._streams():
                self._append(stream.rest())

    def _copy(self) -> None:
        while True:
            ready = self._pipes.select(_IDLE_S if self._is_waiting() else None)
            with self._lock:
                try:
                    self._turn([key.data for key, _ in ready])
                except Exception as error:  # a bug of ours; the trainer would wait for ever once its pipe is full
                    self._append(f"[output is missing here: {type(error).__name__}]\n")
            time.sleep(_PAUSE_S)

    def _turn(self, ready: "list[_Stream]") -> None:
        for stream in ready:
            for _ in range(_PIPE_BYTES // _MAX_PENDING):
                if not self._take(stream):
                    break
        for stream in () if ready else self._streams():
            self._append(stream.words())

    def _is_waiting(self) -> bool:
        with self._lock:
            return any(stream.is_waiting for stream in self._streams())

    def _streams(self) -> "list[_Stream]":
        return [key.data for key in self._pipes.get_map().values()]

    def _take(self, stream: "_Stream") -> bool:
        """Bring over what lies in the pipe, at most so much at once; whether there may be more."""
        if not stream.is_open:
            return False
        try:
            data = os.read(stream.fd, _MAX_PENDING)
        except BlockingIOError:
            return False
        if data:
            self._append(stream.lines(data))
            return True
        self._append(stream.rest())
        self._pipes.unregister(stream.fd)
        os.close(stream.fd)
        stream.is_open = False
        return False

    def _append(self, text: str) -> None:
        """Never raises. Only holders of the lock may ask."""
        data = text.encode(errors="surrogateescape")
        if not data:
            return
        if self._lost:
            note = f"\n[{self._lost} bytes of output are missing here: the disk was full]\n".encode()
            if self._put(note) < len(note):
                self._lost += len(data)
                return
            self._lost = 0
        self._lost += len(data) - self._put(data)

    def _put(self, data: bytes) -> int:
        """How many bytes of it the file has taken."""
        done = 0
        with contextlib.suppress(OSError):
            while done < len(data):
                done += os.write(self._fd, data[done:])
        return done


class _Stream:
    """What came through one pipe and is not in the file yet. What it gives has no secrets."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.is_open = True
        self._pending = b""
        self._was_shown = False

    @property
    def is_waiting(self) -> bool:
        """Whether there are words that `words` has not seen."""
        return bool(self._pending) and not self._was_shown

    def lines(self, data: bytes) -> str:
        """The lines that are over with these data; more, where a line is longer than it may be."""
        self._pending += data
        self._was_shown = False
        given = self._cut(settled)
        return given + self._cut(settled_words) if len(self._pending) > _MAX_PENDING else given

    def words(self) -> str:
        """The words of the line that is not over, but for those that may belong to a secret."""
        self._was_shown = True
        return self._cut(settled_words)

    def rest(self) -> str:
        """All of it."""
        return self._cut(len)

    def _cut(self, length: Callable[[str], int]) -> str:
        if not self._pending:
            return ""
        text = self._pending.decode(errors="surrogateescape")
        end = length(text)
        self._pending = text[end:].encode(errors="surrogateescape")
        return redacted(text[:end])
