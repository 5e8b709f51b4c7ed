"""Buckets of the Hub on loopback: files without commits, whose contents go through xet alone."""

import json
from dataclasses import dataclass, field

from hub_handler import HubHandler, RefusalError, Route
from hub_repository import tree_of
from hub_xet import give_token

BUCKET = r"/api/buckets/(?P<id>[\w.-]+/[\w.-]+)"
_TIME = "2026-01-01T00:00:00.000Z"


@dataclass
class Bucket:
    """A bucket: its files, and what xet calls their contents. Tokens in `members` may read and write it."""

    id: str
    members: frozenset[str]
    is_private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)


def create(call: HubHandler, id: str) -> None:
    account = call.hub.accounts.get(call.token)
    owner, _, name = id.partition("/")
    if account is None or owner not in ("me", account["name"]):
        raise RefusalError(403, "", f"You don't have the rights to create a bucket under the namespace {owner}")
    id = f"{account['name']}/{name}"
    url = f"{call.hub.url}/buckets/{id}"
    if id in call.hub.buckets:
        raise RefusalError(409, "", "You already created this bucket", url=url)
    is_private = call.json().get("visibility") == "private"
    call.hub.buckets[id] = Bucket(id, frozenset({call.token or ""}), is_private)
    call.answer_json({"url": url})


def info(call: HubHandler, id: str) -> None:
    bucket = _bucket(call, id)
    size = sum(map(len, bucket.files.values()))
    facts = {"id": id, "private": bucket.is_private, "createdAt": _TIME, "size": size, "totalFiles": len(bucket.files)}
    call.answer_json(facts)


def tree(call: HubHandler, id: str, prefix: str | None = None) -> None:
    bucket = _bucket(call, id)
    is_recursive = call.query.get("recursive", ["false"])[0].lower() == "true"
    entries = tree_of(bucket.files, prefix or "", is_recursive)
    folders = [] if is_recursive else [entry for entry in entries if entry["type"] == "directory"]
    call.answer_json([*folders, *_files(bucket, [entry["path"] for entry in entries])])


def paths_info(call: HubHandler, id: str) -> None:
    call.answer_json(_files(_bucket(call, id), call.json()["paths"]))


def batch(call: HubHandler, id: str) -> None:
    """Add, copy and delete files, one after the other; those that cannot be are named in the answer."""
    bucket = _bucket(call, id)
    failed = []
    for operation in map(json.loads, call.body.splitlines()):
        path = operation["path"]
        if operation["type"] == "deleteFile":
            bucket.files.pop(path, None)
            bucket.hashes.pop(path, None)
            continue
        assert call.hub.xet is not None, "a client without xet cannot have come here"
        stored = call.hub.xet.find(hash=operation["xetHash"])
        if stored is None:
            failed.append({"path": path, "error": "its content was never uploaded"})
        else:
            bucket.files[path], bucket.hashes[path] = call.hub.xet.read(stored), stored.hash
    done = len(call.body.splitlines()) - len(failed)
    call.answer_json({"success": not failed, "processed": done, "succeeded": done, "failed": failed})


def resolve(call: HubHandler, id: str, path: str) -> None:
    content = _bucket(call, id).files.get(path)
    if content is None:
        raise RefusalError(404, "EntryNotFound", f"{path} does not exist")
    call.answer_content(content, {"Accept-Ranges": "bytes", "ETag": f'"{_bucket(call, id).hashes[path]}"'})


def token(call: HubHandler, id: str, right: str) -> None:
    if right == "write" and call.token not in _bucket(call, id).members:
        raise RefusalError(403, "", "You do not have write access to this bucket")
    give_token(call)


def _bucket(call: HubHandler, id: str) -> Bucket:
    found = call.hub.buckets.get(id)
    if found is None or (found.is_private and call.token not in found.members):
        raise RefusalError(404, "RepoNotFound", "Bucket not found")
    return found


def _files(bucket: Bucket, paths: list[str]) -> list[dict[str, object]]:
    """What is told of those of the paths that are files."""
    facts = {"type": "file", "mtime": _TIME, "uploadedAt": _TIME}
    there = [path for path in paths if path in bucket.files]
    return [{**facts, "path": path, "size": len(bucket.files[path]), "xetHash": bucket.hashes[path]} for path in there]


BUCKETS: tuple[Route, ...] = (
    (("POST",), BUCKET, create),
    (("GET",), BUCKET, info),
    (("GET",), rf"{BUCKET}/tree(?:/(?P<prefix>.+))?", tree),
    (("POST",), rf"{BUCKET}/paths-info", paths_info),
    (("POST",), rf"{BUCKET}/batch", batch),
    (("GET",), rf"{BUCKET}/xet-(?P<right>read|write)-token", token),
    (("GET", "HEAD"), r"/buckets/(?P<id>[\w.-]+/[\w.-]+)/resolve/(?P<path>.+)", resolve),
)
