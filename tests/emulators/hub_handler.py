"""One request to the Hub on loopback: what was asked by whom, and the ways to answer. The pages are functions of it."""

import contextlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from hub_faults import flipped, tear_down
from hub_objects import FullError
from hub_repository import Repository

if TYPE_CHECKING:
    from hub_faults import Fault
    from hub_server import HubServer

Page = Callable[..., None]
"""Takes the request, and the named groups of its route."""
Route = tuple[Sequence[str], str, Page]
"""Methods, pattern of the whole path, page."""

ID = r"(?P<id>(?:[\w.-]+/)?[\w.-]+)"
API = rf"/api/(?P<kind>datasets|models)/{ID}"
REVISION = r"(?P<revision>refs/[\w.-]+/[\w.-]+|[^/]+)"


class RefusalError(Exception):
    """An answer that is not what was asked for, as the Hub words it."""

    def __init__(self, status: int, code: str, message: str, **facts: str) -> None:
        self.status, self.code, self.message, self.facts = status, code, message, facts


class HubHandler(BaseHTTPRequestHandler):
    hub: "ClassVar[HubServer]"
    routes: ClassVar[Sequence[Route]]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the acknowledgement of its headers

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def handle(self) -> None:
        """As ever, but for a client, or a fault, that has torn the connection down."""
        with contextlib.suppress(OSError, ValueError):
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    def log_message(self, *_: object) -> None:
        """Quiet: `hub.requests` has them all."""

    def repository(self, kind: str, id: str) -> Repository:
        """The repository, if whoever asks may know of it."""
        found = self.hub.repositories.get(("dataset" if kind == "datasets" else "model", id))
        if found is None or (found.is_private and self.token not in found.readers):
            raise RefusalError(404 if self.token else 401, "RepoNotFound", "Repository not found")
        return found

    def commit_of(self, repository: Repository, revision: str) -> str:
        commit = repository.commit_of(revision)
        if commit is None:
            raise RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)

    def json(self) -> Any:  # Any: JSON
        return json.loads(self.body)

    def answer_json(self, value: Any, headers: Mapping[str, str] | None = None) -> None:  # Any: JSON
        self.answer(HTTPStatus.OK, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def answer_content(self, content: bytes, headers: dict[str, str]) -> None:
        """The content, or the range of it that was asked for."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not match:
            self.answer(HTTPStatus.OK, content, headers)
            return
        first, last = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
        if first > last:
            self.answer(416, b"", headers | {"Content-Range": f"bytes */{len(content)}"})
            return
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self.answer(HTTPStatus.PARTIAL_CONTENT, content[first : last + 1], headers)

    def answer(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        kind = self.fault.kind if self.fault is not None else None
        if self.fault is not None and kind == "status":
            status, content, headers = self.fault.status, b"{}", self.fault.headers
        elif kind == "flip":
            content = flipped(content)
        elif kind == "page":
            status, content, headers = HTTPStatus.OK, b"<html>Welcome to our network</html>", {}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if "content-length" not in map(str.lower, headers):  # of a HEAD, where it is that of what is not sent
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content if kind not in ("reset", "truncate") else content[: len(content) // 2])
        if kind == "reset":
            self.wfile.flush()
            self._tear_down()
        self.close_connection = self.close_connection or kind == "truncate"

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        authorization = self.headers.get("Authorization") or ""
        self.token = authorization.removeprefix("Bearer ") or None
        self.fault: Fault | None = self.hub.note(self.command, path, self.token)
        size = int(self.headers.get("Content-Length") or 0)
        if self.fault is not None and (self.fault.kind == "away" or (self.fault.kind == "reset" and size)):
            self.rfile.read(size // 2 if self.fault.kind == "reset" else 0)
            self._tear_down()
            return
        started = time.monotonic()
        self.body = self._read_body()
        if self.body:
            self.hub.received.append((started, time.monotonic(), len(self.body)))
        if self.fault is not None:
            if self.fault.kind == "hang":
                self.hub.hang()
                self._tear_down()
                return
            if self.fault.kind == "slow":
                time.sleep(self.fault.seconds)
            elif self.fault.kind == "status" and not self.fault.is_answer_lost:
                self.answer(self.fault.status, b"{}", self.fault.headers)
                return
        try:
            self._route(path)
        except FullError:
            self.answer(HTTPStatus.INSUFFICIENT_STORAGE, b'{"error": "No space left on device"}', {})
        except RefusalError as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            self.answer(refusal.status, json.dumps({"error": refusal.message, **refusal.facts}).encode(), headers)

    def _tear_down(self) -> None:
        self.close_connection = True
        tear_down(self.connection)

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _route(self, path: str) -> None:
        for methods, pattern, page in self.routes:
            match = re.fullmatch(pattern, path)
            if match and self.command in methods:
                page(self, **match.groupdict())
                return
        raise RefusalError(404, "", f"no such page: {path}")
