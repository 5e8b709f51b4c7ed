"""The pages of the Hub on loopback that take an upload, in the order a client calls them.

create -> validate_yaml -> preupload -> batch -> put -> verify -> commit. Large files go by their sha256 through `put`,
or in parts through `put_part` and `complete`, small ones inside the commit. Clients of xet leave out batch to verify.
"""

import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any

import yaml
from hub_handler import API, ID, REVISION, HubHandler, RefusalError, Route
from hub_repository import Files, Kind, Repository, etag_of, is_large, object_id

if TYPE_CHECKING:
    from hub_server import HubServer

_WRITING_ROLES = ("admin", "write", "contributor")


def create(call: HubHandler) -> None:
    wanted = call.json()
    account = _account(call)
    owner = wanted.get("organization") or account["name"]
    kind: Kind = wanted.get("type") or "model"
    id = f"{owner}/{wanted['name']}"
    url = f"{call.hub.url}/{'datasets/' if kind == 'dataset' else ''}{id}"
    if not _may_create(account, owner):
        raise RefusalError(403, "", f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
    with call.hub.lock:
        if (kind, id) in call.hub.repositories:
            raise RefusalError(409, "", f"You already created this {kind} repo", url=url)
        mine = frozenset({call.token or ""})
        made = Repository(kind, id, wanted.get("visibility") == "private", readers=mine, writers=mine)
        made.commit({".gitattributes": b"*.parquet filter=lfs diff=lfs merge=lfs -text\n"})
        call.hub.repositories[kind, id] = made
    call.answer_json({"url": url, "name": id})


def validate_yaml(call: HubHandler) -> None:
    try:
        yaml.safe_load(call.json()["content"].split("---")[1])
    except (IndexError, yaml.YAMLError) as e:
        call.answer(400, json.dumps({"errors": [{"message": str(e)}]}).encode(), {})
        return
    call.answer_json({"errors": [], "warnings": []})


def preupload(call: HubHandler, kind: str, id: str, revision: str) -> None:
    repository = _writable(call, kind, id)
    files = repository.commits[call.commit_of(repository, revision)]
    wanted = [_upload_mode(file, files) for file in call.json()["files"]]
    _check_quota(call, [file for file, mode in zip(call.json()["files"], wanted, strict=True) if "oid" not in mode])
    call.answer_json({"files": wanted})


def batch(call: HubHandler, id: str, datasets: str | None = None) -> None:
    _writable(call, "datasets" if datasets else "models", id)
    objects = []
    for wanted in call.json()["objects"]:
        entry = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in call.hub.objects:
            upload = _upload_of(call.hub, **entry)
            entry["actions"] = {"upload": upload, "verify": {"href": f"{call.hub.url}/_verify"}}
        objects.append(entry)
    call.answer_json({"transfer": "multipart" if call.hub.part_bytes else "basic", "objects": objects})


def put(call: HubHandler, oid: str) -> None:
    _store(call.hub, oid, call.body)
    call.answer_json({})


def put_part(call: HubHandler, oid: str, number: str) -> None:
    call.hub.parts[oid, int(number)] = call.body
    call.answer_json({}, {"ETag": f'"{hashlib.md5(call.body).hexdigest()}"'})


def complete(call: HubHandler, oid: str) -> None:
    """Join the parts that the client says it has sent. A file may be sent twice at a time, for two places."""
    with call.hub.lock:  # else the second of two could look for parts that the first removes
        if oid not in call.hub.objects:
            _join(call.hub, oid, call.json()["parts"])
    call.answer_json({})


def verify(call: HubHandler) -> None:
    wanted = call.json()
    content = call.hub.objects.get(wanted["oid"])
    if content is None or len(content) != wanted["size"]:
        raise RefusalError(404, "", "The object is not there whole")
    call.answer_json({})


def commit(call: HubHandler, kind: str, id: str, revision: str) -> None:
    repository = _writable(call, kind, id)
    operations = [json.loads(line) for line in call.body.splitlines()]
    header = next(operation["value"] for operation in operations if operation["key"] == "header")
    with call.hub.lock:
        newest = call.commit_of(repository, revision)
        if header.get("parentCommit") not in (None, newest):
            raise RefusalError(412, "", "A commit has happened since. Please refresh and try again.")
        files = dict(repository.commits[newest])
        for operation in operations:
            _apply(operation["key"], operation["value"], files, call.hub)
        made = repository.commit(files, revision)
    url = f"{call.hub.url}/{'datasets/' if kind == 'datasets' else ''}{id}/commit/{made}"
    call.answer_json({"success": True, "commitOid": made, "commitUrl": url})


def branch(call: HubHandler, kind: str, id: str, name: str) -> None:
    """A branch that begins with the newest commit of the default one, or with the one asked for."""
    repository = _writable(call, kind, id)
    start = json.loads(call.body or b"{}").get("startingPoint") or "main"
    with call.hub.lock:
        if name in repository.refs:
            raise RefusalError(409, "", f"Reference already exists: refs/heads/{name}")
        repository.refs[name] = call.commit_of(repository, start)
    call.answer_json({})


def _account(call: HubHandler) -> dict[str, Any]:  # Any: JSON
    """Whose the token is."""
    account: dict[str, Any] | None = call.hub.accounts.get(call.token)
    if account is None:
        raise RefusalError(401, "", "Invalid credentials in Authorization header")
    return account


def _may_create(account: dict[str, Any], owner: str) -> bool:  # Any: JSON
    if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
        return False
    roles = {org["name"]: org["roleInOrg"] for org in account.get("orgs", ())}
    return owner == account["name"] or roles.get(owner) in _WRITING_ROLES


def _writable(call: HubHandler, kind: str, id: str) -> Repository:
    _account(call)
    repository = call.repository(kind, id)
    if call.token not in repository.writers:
        raise RefusalError(403, "", "You do not have write access to this repository")
    return repository


def _upload_mode(file: dict[str, Any], files: Files) -> dict[str, Any]:  # Any: JSON
    path = file["path"]
    mode = {"path": path, "shouldIgnore": False, "uploadMode": "lfs" if is_large(path, file["size"]) else "regular"}
    return mode | ({"oid": etag_of(path, files[path])} if path in files else {})


def _check_quota(call: HubHandler, files: list[dict[str, Any]]) -> None:  # Any: JSON
    """Refuse, in the Hub's words, what would be too much together with what is there."""
    quota = call.hub.quota_bytes
    wanted = sum(file["size"] for file in files if is_large(file["path"], file["size"]))
    if quota is not None and wanted + sum(map(len, call.hub.objects.values())) > quota:
        remedy = "please upgrade your plan to increase your private storage limit"
        raise RefusalError(403, "", f"Private repository storage limit reached, {remedy}.")


def _upload_of(hub: "HubServer", oid: str, size: int) -> dict[str, Any]:  # Any: JSON
    """Where the client is to send a large file: to one address, or a part to each of several."""
    if hub.part_bytes is None or size <= hub.part_bytes:
        return {"href": f"{hub.url}/_objects/{oid}"}
    numbers = range(1, -(-size // hub.part_bytes) + 1)
    parts = {str(number): f"{hub.url}/_parts/{oid}/{number}" for number in numbers}
    return {"href": f"{hub.url}/_complete/{oid}", "header": {"chunk_size": str(hub.part_bytes), **parts}}


def _join(hub: "HubServer", oid: str, parts: list[dict[str, Any]]) -> None:  # Any: JSON
    content = b""
    for part in parts:
        piece = hub.parts.get((oid, part["partNumber"]))
        if piece is None or part["etag"].strip('"') != hashlib.md5(piece).hexdigest():
            raise RefusalError(400, "", f"Part {part['partNumber']} is not there, or another one")
        content += piece
    _store(hub, oid, content)
    for key in [key for key in list(hub.parts) if key[0] == oid]:
        del hub.parts[key]


def _store(hub: "HubServer", oid: str, content: bytes) -> None:
    if object_id(content) != oid:
        raise RefusalError(400, "", "The content is not what its sha256 says")
    hub.objects[oid] = content


def _apply(key: str, value: dict[str, Any], files: Files, hub: "HubServer") -> None:  # Any: JSON
    """Carry out one line of a commit on the tree."""
    if key == "file":
        files[value["path"]] = base64.b64decode(value["content"])
    elif key == "lfsFile":
        content = hub.content(value["oid"])
        if content is None:
            raise RefusalError(422, "", f"{value['path']}: its content was never uploaded")
        files[value["path"]] = content
    elif key == "deletedFile":
        if files.pop(value["path"], None) is None:
            raise RefusalError(404, "EntryNotFound", "A file with this name doesn't exist")
    elif key == "deletedFolder":
        for name in [name for name in files if name.startswith(value["path"].rstrip("/") + "/")]:
            del files[name]


UPLOAD: tuple[Route, ...] = (
    (("POST",), r"/api/repos/create", create),
    (("POST",), r"/api/validate-yaml", validate_yaml),
    (("POST",), rf"{API}/preupload/{REVISION}", preupload),
    (("POST",), rf"/(?P<datasets>datasets/)?{ID}\.git/info/lfs/objects/batch", batch),
    (("PUT",), r"/_objects/(?P<oid>[0-9a-f]{64})", put),
    (("PUT",), r"/_parts/(?P<oid>[0-9a-f]{64})/(?P<number>[0-9]+)", put_part),
    (("POST",), r"/_complete/(?P<oid>[0-9a-f]{64})", complete),
    (("POST",), r"/_verify", verify),
    (("POST",), rf"{API}/commit/{REVISION}", commit),
    (("POST",), rf"{API}/branch/(?P<name>.+)", branch),
)
