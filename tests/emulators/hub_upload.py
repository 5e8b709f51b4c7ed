"""The pages of the Hub on loopback that take an upload, in the order a client calls them.

create -> validate_yaml -> preupload -> batch -> put -> verify -> commit. Large files go by their sha256 through `put`,
small ones inside the commit. Not served: xet (clients need HF_HUB_DISABLE_XET=1), uploads in parts, pull requests,
copies.
"""

import base64
import json
from typing import Any

import yaml
from hub_handler import API, ID, REVISION, HubHandler, RefusalError, Route
from hub_repository import Files, Kind, Repository, etag_of, is_large, object_id

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
    call.answer_json({"files": [_upload_mode(file, files) for file in call.json()["files"]]})


def batch(call: HubHandler, id: str, datasets: str | None = None) -> None:
    _writable(call, "datasets" if datasets else "models", id)
    objects = []
    for wanted in call.json()["objects"]:
        entry = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in call.hub.objects:
            upload = {"href": f"{call.hub.url}/_objects/{wanted['oid']}"}
            entry["actions"] = {"upload": upload, "verify": {"href": f"{call.hub.url}/_verify"}}
        objects.append(entry)
    call.answer_json({"transfer": "basic", "objects": objects})


def put(call: HubHandler, oid: str) -> None:
    if object_id(call.body) != oid:
        raise RefusalError(400, "", "The content is not what its sha256 says")
    call.hub.objects[oid] = call.body
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
            _apply(operation["key"], operation["value"], files, call.hub.objects)
        made = repository.commit(files, revision)
    url = f"{call.hub.url}/{'datasets/' if kind == 'datasets' else ''}{id}/commit/{made}"
    call.answer_json({"success": True, "commitOid": made, "commitUrl": url})


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


def _apply(key: str, value: dict[str, Any], files: Files, objects: dict[str, bytes]) -> None:  # Any: JSON
    """Carry out one line of a commit on the tree."""
    if key == "file":
        files[value["path"]] = base64.b64decode(value["content"])
    elif key == "lfsFile":
        if value["oid"] not in objects:
            raise RefusalError(422, "", f"{value['path']}: its content was never uploaded")
        files[value["path"]] = objects[value["oid"]]
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
    (("POST",), r"/_verify", verify),
    (("POST",), rf"{API}/commit/{REVISION}", commit),
)
