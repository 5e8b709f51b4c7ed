"""A server on loopback whose answers can be made to go wrong, and which remembers what it was asked."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from hub_faults import Fault, Faults, Kind


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    token: str | None


class FaultyServer:
    """Serves from its construction to `close`. Its handler asks `note` of each request whether a fault is due."""

    def __init__(self, handler: type[BaseHTTPRequestHandler], attributes: dict[str, Any], port: int = 0) -> None:
        self.requests: list[Request] = []
        self.received: list[tuple[float, float, int]] = []
        """Of each body that was sent: when it began to come, when all of it was there, by time.monotonic, and bytes."""
        self._faults = Faults()
        self._notes = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (handler,), attributes))
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._faults.heal()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def fail(
        self,
        status: int,
        *,
        times: int,
        path: str = "",
        method: str | None = None,
        headers: Mapping[str, str] | None = None,
        is_answer_lost: bool = False,
    ) -> None:
        """Answer the next `times` requests whose path contains `path` with that status.

        They are not carried out, unless it is the answer that is lost.
        """
        self._faults.add(Fault("status", times, path, method, status, headers or {}, is_answer_lost))

    def disturb(
        self, kind: Kind, *, times: int, path: str = "", method: str | None = None, seconds: float = 0.0
    ) -> None:
        """Have the next `times` requests whose path contains `path` go wrong in that way; see hub_faults."""
        self._faults.add(Fault(kind, times, path, method, seconds=seconds))

    def heal(self) -> None:
        """Forget the faults that have not happened, and the requests made so far."""
        self._faults.heal()
        with self._notes:
            self.requests.clear()
            self.received.clear()

    def hang(self) -> None:
        self._faults.hang()

    @property
    def num_outwaited(self) -> int:
        """Requests whose client would have waited without end."""
        return self._faults.num_outwaited

    def note(self, method: str, path: str, token: str | None) -> Fault | None:
        """Remember a request; the fault that is due for it."""
        with self._notes:
            self.requests.append(Request(method, path, token))
        return self._faults.take(method, path)
