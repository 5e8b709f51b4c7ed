"""A small Hugging Face Hub on loopback, for the real huggingface_hub and datasets clients.

    with HubServer() as hub:
        commit = hub.add("dataset", "org/rows", {"train.jsonl": b"..."})
        ...                                    # clients started with HF_ENDPOINT=hub.url
        hub.fail(503, times=2, path="/resolve/", headers={"Retry-After": "1"})

Repositories are kept in memory: each `add` is a commit on a branch. Serves repository info, file trees and files with
etags and ranges. What it does not serve yet is a 404, and listed in `hub.requests` like everything else.
"""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

Kind = Literal["dataset", "model"]
Files = dict[str, bytes]


@dataclass
class Repository:
    """A repository: every commit with its whole tree, and what the branches and tags point at."""

    kind: Kind
    id: str
    is_private: bool = False
    is_gated: bool = False
    """Its info is public; its files need a token that is in `readers`."""
    readers: frozenset[str] = frozenset()
    writers: frozenset[str] = frozenset()
    """Tokens that may push."""
    commits: dict[str, Files] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit_of(self, revision: str) -> str | None:
        """The commit of a branch, tag or (abbreviated) commit."""
        if revision in self.refs:
            return self.refs[revision]
        return next((commit for commit in self.commits if len(revision) >= 7 and commit.startswith(revision)), None)


@dataclass
class Fault:
    status: int
    times: int
    path: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    token: str | None


class HubServer:
    """Serves from its construction to `close`; `url` is its HF_ENDPOINT."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[Kind, str], Repository] = {}
        self.requests: list[Request] = []
        self.accounts: dict[str | None, Any] = {}  # Any: JSON
        """Token -> what the Hub says of whose it is."""
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(
        self,
        kind: Kind,
        id: str,
        files: Files,
        *,
        branch: str = "main",
        is_private: bool = False,
        is_gated: bool = False,
        readers: tuple[str, ...] = (),
        writers: tuple[str, ...] = (),
    ) -> str:
        """Commit the tree `files` to `branch`; the commit's id. The repository is made if it is not there."""
        repository = self.repositories.setdefault((kind, id), Repository(kind, id))
        repository.is_private, repository.is_gated = is_private, is_gated
        repository.readers, repository.writers = frozenset(readers), frozenset(writers)
        content = [id, branch, repository.refs.get(branch), sorted((name, _blob_id(b)) for name, b in files.items())]
        commit = hashlib.sha1(json.dumps(content).encode()).hexdigest()
        repository.commits[commit] = dict(files)
        repository.refs[branch] = commit
        return commit

    def fail(self, status: int, *, times: int, path: str = "", headers: Mapping[str, str] | None = None) -> None:
        """Answer the next `times` requests whose path contains `path` with that status."""
        with self._lock:
            self._faults.append(Fault(status, times, path, headers or {}))

    def heal(self) -> None:
        """Forget the faults that have not happened, and the requests made so far."""
        with self._lock:
            self._faults.clear()
            self.requests.clear()

    def note(self, request: Request) -> Fault | None:
        """Remember a request; the fault that is due for it."""
        with self._lock:
            self.requests.append(request)
            for fault in self._faults:
                if fault.times and fault.path in request.path:
                    fault.times -= 1
                    return fault
        return None


class _RefusalError(Exception):
    """An answer that is not what was asked for, as the Hub words it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, *_: object) -> None:
        """Quiet: `hub.requests` has them all."""

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        path = unquote(urlsplit(self.path).path)
        authorization = self.headers.get("Authorization") or ""
        self.token = authorization.removeprefix("Bearer ") or None
        fault = self.hub.note(Request(self.command, path, self.token))
        if fault:
            self._answer(fault.status, b"{}", fault.headers)
            return
        try:
            self._route(path)
        except _RefusalError as refusal:
            headers = {"X-Error-Code": refusal.code, "X-Error-Message": refusal.message}
            self._answer(refusal.status, json.dumps({"error": refusal.message}).encode(), headers)

    def _route(self, path: str) -> None:
        for method, pattern, serve in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                serve(self, **match.groupdict())
                return
        raise _RefusalError(404, "", f"no such page: {path}")

    def info(self, kind: str, id: str, revision: str | None = None) -> None:
        repository = self._repository(kind, id)
        commit = self._commit(repository, revision or "main")
        files = repository.commits[commit]
        self._answer_json(
            {
                "_id": commit[:24],
                "id": id,
                "author": id.partition("/")[0],
                "sha": commit,
                "lastModified": "2026-01-01T00:00:00.000Z",
                "createdAt": "2026-01-01T00:00:00.000Z",
                "private": repository.is_private,
                "gated": "manual" if repository.is_gated else False,
                "disabled": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [{"rfilename": name} for name in sorted(files)],
            }
        )

    def auth_check(self, kind: str, id: str) -> None:
        self._check_access(self._repository(kind, id))
        self._answer_json({})

    def write_check(self, kind: str, id: str) -> None:
        if self.token not in self._repository(kind, id).writers:
            raise _RefusalError(403, "", "You do not have write access to this repository")
        self._answer_json({})

    def whoami(self) -> None:
        if self.token not in self.hub.accounts:
            raise _RefusalError(401, "", "Invalid user token.")
        self._answer_json(self.hub.accounts[self.token])

    def tree(self, kind: str, id: str, revision: str, directory: str | None = None) -> None:
        repository = self._repository(kind, id)
        files = repository.commits[self._commit(repository, revision)]
        query = parse_qs(urlsplit(self.path).query)
        is_recursive = query.get("recursive", ["false"])[0].lower() in ("true", "1")
        found = _tree(files, directory or "", is_recursive)
        if directory and not found:
            raise _RefusalError(404, "EntryNotFound", f"{directory} does not exist on {revision}")
        self._answer_json(found)

    def paths_info(self, kind: str, id: str, revision: str) -> None:
        repository = self._repository(kind, id)
        files = repository.commits[self._commit(repository, revision)]
        if "json" in (self.headers.get("Content-Type") or ""):
            wanted = json.loads(self.body)["paths"]
        else:
            wanted = parse_qs(self.body.decode()).get("paths", [])
        everything = _tree(files, "", is_recursive=True)
        self._answer_json([entry for entry in everything if entry["path"] in wanted])

    def resolve(self, id: str, revision: str, file: str, datasets: str | None = None) -> None:
        repository = self._repository("datasets" if datasets else "models", id)
        commit = self._commit(repository, revision)
        self._check_access(repository)
        content = repository.commits[commit].get(file)
        if content is None:
            raise _RefusalError(404, "EntryNotFound", f"{file} does not exist on {revision}")
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_blob_id(content)}"', "Accept-Ranges": "bytes"}
        self._answer_content(content, headers)

    def _repository(self, kind: str, id: str) -> Repository:
        found = self.hub.repositories.get(("dataset" if kind == "datasets" else "model", id))
        if found is None or (found.is_private and self.token not in found.readers):
            raise _RefusalError(404 if self.token else 401, "RepoNotFound", "Repository not found")
        return found

    def _check_access(self, repository: Repository) -> None:
        if repository.is_gated and self.token not in repository.readers:
            status = 403 if self.token else 401
            raise _RefusalError(status, "GatedRepo", f"Access to {repository.id} is restricted")

    def _commit(self, repository: Repository, revision: str) -> str:
        commit = repository.commit_of(revision)
        if commit is None:
            raise _RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return commit

    def _answer_content(self, content: bytes, headers: dict[str, str]) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not match:
            self._answer(HTTPStatus.OK, content, headers)
            return
        first, last = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
        if first > last:
            self._answer(416, b"", headers | {"Content-Range": f"bytes */{len(content)}"})
            return
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._answer(HTTPStatus.PARTIAL_CONTENT, content[first : last + 1], headers)

    def _answer_json(self, value: Any) -> None:  # Any: JSON
        self._answer(HTTPStatus.OK, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _tree(files: Files, directory: str, is_recursive: bool) -> list[dict[str, Any]]:  # Any: JSON
    """The entries of a directory as the tree endpoint gives them."""
    prefix = f"{directory}/" if directory else ""
    entries: dict[str, dict[str, Any]] = {}
    for name, content in sorted(files.items()):
        if not name.startswith(prefix):
            continue
        *parents, _ = name.removeprefix(prefix).split("/")
        for depth in range(1, len(parents) + 1 if is_recursive else min(len(parents), 1) + 1):
            path = prefix + "/".join(parents[:depth])
            entries[path] = {"type": "directory", "oid": _blob_id(path.encode()), "size": 0, "path": path}
        if is_recursive or not parents:
            entries[name] = {"type": "file", "oid": _blob_id(content), "size": len(content), "path": name}
    return list(entries.values())


def _blob_id(content: bytes) -> str:
    """The id that git gives a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


_ID = r"(?P<id>(?:[\w.-]+/)?[\w.-]+)"
_API = rf"/api/(?P<kind>datasets|models)/{_ID}"
_REVISION = r"(?P<revision>refs/[\w.-]+/[\w.-]+|[^/]+)"
_ROUTES: tuple[tuple[tuple[str, ...], str, Callable[..., None]], ...] = (
    (("GET",), rf"{_API}/revision/{_REVISION}", _Handler.info),
    (("GET",), rf"{_API}/auth-check", _Handler.auth_check),
    (("GET",), rf"{_API}/auth-check/write", _Handler.write_check),
    (("GET",), r"/api/whoami-v2", _Handler.whoami),
    (("GET",), rf"{_API}/tree/{_REVISION}(?:/(?P<directory>.+))?", _Handler.tree),
    (("POST",), rf"{_API}/paths-info/{_REVISION}", _Handler.paths_info),
    (("GET",), _API, _Handler.info),
    (("GET", "HEAD"), rf"/(?P<datasets>datasets/)?{_ID}/resolve/{_REVISION}/(?P<file>.+)", _Handler.resolve),
)
