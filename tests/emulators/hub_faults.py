"""What can go wrong between a client and the Hub on loopback, and how it is done to a connection."""

import socket
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["status", "away", "reset", "slow", "hang", "truncate", "flip", "page"]
"""status    the request is refused with a status; with `is_answer_lost` it is carried out first
away      the connection is torn down before anything of the request is looked at
reset     the connection is torn down: in the middle of the body that is sent, else of the answer
slow      the answer comes `seconds` late
hang      the answer never comes: for a minute, or until the server is healed or closed
truncate  half of the answer comes, then the end
flip      one byte of the content is another one
page      what was asked for is done, and answered with a page for people, as proxies do
"""


@dataclass
class Fault:
    kind: Kind
    times: int
    path: str = ""
    """Requests whose path contains it."""
    method: str | None = None
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    is_answer_lost: bool = False
    seconds: float = 0.0

    def is_due(self, method: str, path: str) -> bool:
        return self.times > 0 and self.path in path and self.method in (None, method)


class Faults:
    """The faults that are still to happen."""

    def __init__(self) -> None:
        self._open: list[Fault] = []
        self._lock = threading.Lock()
        self._healed = threading.Event()
        self.num_outwaited = 0
        """Requests that hung to the end of `hang`, because the client would have waited longer."""

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._open.append(fault)

    def take(self, method: str, path: str) -> Fault | None:
        """The fault that is due for a request, which counts as happened."""
        with self._lock:
            found = next((fault for fault in self._open if fault.is_due(method, path)), None)
            if found is not None:
                found.times -= 1
            return found

    def heal(self) -> None:
        """Forget what has not happened, and let those go that hang."""
        with self._lock:
            self._open.clear()
            self._healed.set()
            self._healed = threading.Event()

    def hang(self, seconds: float = 60.0) -> None:
        if not self._healed.wait(seconds):
            self.num_outwaited += 1


def tear_down(connection: socket.socket) -> None:
    """Close with a reset (RST) in place of an orderly end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def flipped(content: bytes) -> bytes:
    """The content with one bit of its middle byte changed."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :] if content else content
