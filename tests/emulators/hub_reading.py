"""The pages of the Hub on loopback that change nothing."""

from urllib.parse import parse_qs

from hub_handler import API, ID, REVISION, HubHandler, RefusalError, Route
from hub_repository import Repository, etag_of, is_large, object_id, tree_of


def info(call: HubHandler, kind: str, id: str, revision: str | None = None) -> None:
    repository = call.repository(kind, id)
    commit = call.commit_of(repository, revision or "main")
    call.answer_json(
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
            "siblings": [{"rfilename": name} for name in sorted(repository.commits[commit])],
        }
    )


def auth_check(call: HubHandler, kind: str, id: str) -> None:
    _check_access(call, call.repository(kind, id))
    call.answer_json({})


def write_check(call: HubHandler, kind: str, id: str) -> None:
    if call.token not in call.repository(kind, id).writers:
        raise RefusalError(403, "", "You do not have write access to this repository")
    call.answer_json({})


def whoami(call: HubHandler) -> None:
    if call.token not in call.hub.accounts:
        raise RefusalError(401, "", "Invalid user token.")
    call.answer_json(call.hub.accounts[call.token])


def tree(call: HubHandler, kind: str, id: str, revision: str, directory: str | None = None) -> None:
    repository = call.repository(kind, id)
    files = repository.commits[call.commit_of(repository, revision)]
    is_recursive = call.query.get("recursive", ["false"])[0].lower() in ("true", "1")
    found = tree_of(files, directory or "", is_recursive)
    if directory and not found:
        raise RefusalError(404, "EntryNotFound", f"{directory} does not exist on {revision}")
    call.answer_json(found)


def paths_info(call: HubHandler, kind: str, id: str, revision: str) -> None:
    repository = call.repository(kind, id)
    files = repository.commits[call.commit_of(repository, revision)]
    if "json" in (call.headers.get("Content-Type") or ""):
        wanted = call.json()["paths"]
    else:
        wanted = parse_qs(call.body.decode()).get("paths", [])
    everything = tree_of(files, "", is_recursive=True)
    call.answer_json([entry for entry in everything if entry["path"] in wanted])


def resolve(call: HubHandler, id: str, revision: str, file: str, datasets: str | None = None) -> None:
    repository = call.repository("datasets" if datasets else "models", id)
    commit = call.commit_of(repository, revision)
    _check_access(call, repository)
    content = repository.commits[commit].get(file)
    if content is None:
        raise RefusalError(404, "EntryNotFound", f"{file} does not exist on {revision}")
    headers = {"X-Repo-Commit": commit, "ETag": f'"{etag_of(file, content)}"', "Accept-Ranges": "bytes"}
    oid = object_id(content)
    if is_large(file, len(content)):
        if call.hub.xet is not None and (stored := call.hub.xet.find(sha256=oid)):
            route = f"{call.hub.url}/api/{datasets or 'models/'}{id}/xet-read-token/{commit}"
            headers |= {"X-Xet-Hash": stored.hash, "X-Xet-Refresh-Route": route}
        if call.hub.has_cdn:
            call.hub.objects.setdefault(oid, content)
            headers |= {"X-Linked-Etag": headers["ETag"], "X-Linked-Size": str(len(content))}
            call.answer(302, b"", headers | {"Location": f"http://localhost:{call.hub.port}/_content/{oid}"})
            return
    call.answer_content(content, headers)


def content(call: HubHandler, oid: str) -> None:
    """A large file by itself, as from a content delivery network: a token that comes here has leaked."""
    if call.token is not None:
        raise RefusalError(400, "", "Only one auth mechanism allowed")
    call.answer_content(call.hub.objects[oid], {"ETag": f'"{oid}"', "Accept-Ranges": "bytes"})


def _check_access(call: HubHandler, repository: Repository) -> None:
    if repository.is_gated and call.token not in repository.readers:
        status = 403 if call.token else 401
        raise RefusalError(status, "GatedRepo", f"Access to {repository.id} is restricted")


READING: tuple[Route, ...] = (
    (("GET",), rf"{API}/revision/{REVISION}", info),
    (("GET",), rf"{API}/auth-check", auth_check),
    (("GET",), rf"{API}/auth-check/write", write_check),
    (("GET",), r"/api/whoami-v2", whoami),
    (("GET",), rf"{API}/tree/{REVISION}(?:/(?P<directory>.+))?", tree),
    (("POST",), rf"{API}/paths-info/{REVISION}", paths_info),
    (("GET",), API, info),
    (("GET", "HEAD"), rf"/(?P<datasets>datasets/)?{ID}/resolve/{REVISION}/(?P<file>.+)", resolve),
    (("GET", "HEAD"), r"/_content/(?P<oid>[0-9a-f]{64})", content),
)
