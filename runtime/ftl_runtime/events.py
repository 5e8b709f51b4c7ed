"""events.jsonl: one JSON object a line, each written whole."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

from ftl.errors import StorageError
from ftl.redact import redacted_data


class EventLog:
    """Appends the events of one attempt to a file that earlier attempts may have begun.

    A line is one write on an append-only descriptor, so a reader never sees half a line of a living writer. What a
    killed writer left without a newline is closed off at the start.
    """

    def __init__(self, path: Path, attempt: int) -> None:
        self._path = path
        self._attempt = attempt
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            self._write(b"\n")

    def emit(self, event: str, data: dict[str, Any]) -> None:  # Any: the shape depends on the event, see ftl.contract
        """Append one event, flat floats only: what is not finite is written as null, which JSON can say.

        Secrets in its texts become ***.
        """
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in data.items()}
        record = {"t": time.time(), "attempt": self._attempt, "event": event, "data": redacted_data(finite)}
        self._write(json.dumps(record, allow_nan=False).encode() + b"\n")

    def _write(self, line: bytes) -> None:
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be written: {error.strerror}") from error
        if written != len(line):
            raise StorageError(f"{self._path}: the disk is full; free some space, then resume")


def no_events(event: str, data: dict[str, Any]) -> None:  # Any: as above
    """What ranks other than 0 emit to."""
