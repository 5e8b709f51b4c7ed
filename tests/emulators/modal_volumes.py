"""What the emulated Modal answers about volumes: names and versions, listing, reading and writing from outside,
commits and reloads from containers."""

import dataclasses
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from google.protobuf import empty_pb2
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api
from modal_volume_store import BLOCK_BYTES, BlockStore, Copy, Entry, Volume, below, commit, put_entry, refresh
from modal_world import World

EMPTY = empty_pb2.Empty()


class CopyHolder(Protocol):
    """A container, as far as volumes concern it."""

    copies: dict[str, Copy]

    def open_paths(self, copy: Copy) -> list[str]: ...


class Volumes:
    def __init__(self, world: World, blocks: BlockStore, mount_files: Callable[[str], bytes]) -> None:
        self.world, self.blocks, self._mount_file = world, blocks, mount_files
        self.volumes: dict[str, Volume] = {}
        self.rpcs: dict[str, Any] = {  # Any: an async function or generator over two messages of the same method
            "VolumeGetOrCreate": self.get_or_create,
            "VolumeGetById": self.get_by_id,
            "VolumeHeartbeat": self.heartbeat,
            "VolumeList": self.list_volumes,
            "VolumeDelete": self.delete,
            "VolumeRename": self.rename,
            "VolumeListFiles": self.list_files,
            "VolumeListFiles2": self.list_files2,
            "VolumeGetFile2": self.get_file,
            "VolumePutFiles": self.put_files,
            "VolumePutFiles2": self.put_files2,
            "VolumeRemoveFile": self.remove_file,
            "VolumeRemoveFile2": self.remove_file,
            "VolumeCommit": self.commit,
            "VolumeReload": self.reload,
        }

    def volume(self, id: str) -> Volume:
        if id not in self.volumes:
            raise GRPCError(Status.NOT_FOUND, f"Volume {id} not found")
        return self.volumes[id]

    def named(self, name: str, environment: str) -> Volume | None:
        return next((v for v in self.volumes.values() if (v.name, v.environment) == (name, environment)), None)

    async def get_or_create(
        self, request: api.VolumeGetOrCreateRequest, _: CopyHolder | None
    ) -> api.VolumeGetOrCreateResponse:
        environment, kind = self.world.environment(request.environment_name), request.object_creation_type
        volume = self.named(request.deployment_name, environment) if request.deployment_name else None
        if volume is None:
            if kind == api.OBJECT_CREATION_TYPE_UNSPECIFIED:
                raise GRPCError(
                    Status.NOT_FOUND, f"Volume '{request.deployment_name}' not found in environment '{environment}'"
                )
            version = request.version or api.VOLUME_FS_VERSION_V1
            volume = Volume(self.world.new_id("vo"), request.deployment_name, environment, version, self.world.now())
            self.volumes[volume.id] = volume
        elif kind == api.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
            raise GRPCError(Status.ALREADY_EXISTS, f"Volume '{volume.name}' already exists")
        elif request.version and request.version != volume.version:
            raise GRPCError(
                Status.FAILED_PRECONDITION,
                f"Volume '{volume.name}' has version {volume.version}, not {request.version}",
            )
        return api.VolumeGetOrCreateResponse(volume_id=volume.id, version=volume.version, metadata=_metadata(volume))

    async def get_by_id(self, request: api.VolumeGetByIdRequest, _: CopyHolder | None) -> api.VolumeGetByIdResponse:
        volume = self.volume(request.volume_id)
        return api.VolumeGetByIdResponse(volume_id=volume.id, metadata=_metadata(volume))

    async def heartbeat(self, request: api.VolumeHeartbeatRequest, _: CopyHolder | None) -> empty_pb2.Empty:
        self.volume(request.volume_id)
        return EMPTY

    async def list_volumes(self, request: api.VolumeListRequest, _: CopyHolder | None) -> api.VolumeListResponse:
        environment = self.world.environment(request.environment_name)
        before = request.pagination.created_before or float("inf")
        found = sorted(
            (v for v in self.volumes.values() if v.name and v.environment == environment and v.created_at < before),
            key=lambda v: -v.created_at,
        )
        items = [
            api.VolumeListItem(label=v.name, volume_id=v.id, created_at=v.created_at, metadata=_metadata(v))
            for v in found[: request.pagination.max_objects or None]
        ]
        return api.VolumeListResponse(items=items, environment_name=environment)

    async def delete(self, request: api.VolumeDeleteRequest, _: CopyHolder | None) -> empty_pb2.Empty:
        del self.volumes[self.volume(request.volume_id).id]
        return EMPTY

    async def rename(self, request: api.VolumeRenameRequest, _: CopyHolder | None) -> empty_pb2.Empty:
        volume = self.volume(request.volume_id)
        if self.named(request.name, volume.environment) not in (None, volume):
            raise GRPCError(Status.ALREADY_EXISTS, f"Volume '{request.name}' already exists")
        volume.name = request.name
        return EMPTY

    async def list_files(
        self, request: api.VolumeListFilesRequest, _: CopyHolder | None
    ) -> AsyncIterator[api.VolumeListFilesResponse]:
        yield api.VolumeListFilesResponse(entries=self._entries(request))

    async def list_files2(
        self, request: api.VolumeListFiles2Request, _: CopyHolder | None
    ) -> AsyncIterator[api.VolumeListFiles2Response]:
        entries = self._entries(request)
        for start in range(0, max(len(entries), 1), 100):
            yield api.VolumeListFiles2Response(entries=entries[start : start + 100])

    def _entries(self, request: Any) -> list[api.FileEntry]:  # Any: of either protocol
        volume, path = self.volume(request.volume_id), _clean(request.path)
        found = below(volume, path)
        if path and not found:
            raise GRPCError(Status.NOT_FOUND, f"No such file or directory: {request.path}")
        if not path or volume.tree[path].kind == api.FileEntry.DIRECTORY:
            depth = path.count("/") + 1 if path else 0
            found = [p for p in found if p != path and (request.recursive or p.count("/") == depth)]
        if request.HasField("max_entries"):
            found = found[: request.max_entries]
        return [
            api.FileEntry(path=p, type=entry.kind, mtime=entry.mtime, size=entry.size)
            for p in found
            for entry in [volume.tree[p]]
        ]

    async def get_file(self, request: api.VolumeGetFile2Request, _: CopyHolder | None) -> api.VolumeGetFile2Response:
        entry = self.volume(request.volume_id).tree.get(_clean(request.path))
        if entry is None:
            raise GRPCError(Status.NOT_FOUND, f"No such file: {request.path}")
        if entry.kind != api.FileEntry.FILE:
            raise GRPCError(Status.INVALID_ARGUMENT, f"Not a regular file: {request.path}")
        start = request.start
        length = min(request.len or entry.size, max(0, entry.size - start))
        urls = []
        for block in range(start // BLOCK_BYTES, -(-(start + length) // BLOCK_BYTES)):
            first = max(start - block * BLOCK_BYTES, 0)
            last = min(start + length - block * BLOCK_BYTES, BLOCK_BYTES)
            pad = 0 if request.client_pads_blocks else 1
            sha256 = entry.blocks[block].hex()
            urls.append(f"{self.world.http_url}/blocks/{sha256}?first={first}&last={last}&pad={pad}")
        return api.VolumeGetFile2Response(get_urls=urls, size=entry.size, start=start, len=length)

    async def put_files(self, request: api.VolumePutFilesRequest, _: CopyHolder | None) -> empty_pb2.Empty:
        """The way of version 1: contents came as files of mounts do."""
        volume = self.volume(request.volume_id)
        for file in request.files:
            self._check_new(volume, file.filename, is_forbidden=request.disallow_overwrite_existing_files)
        for file in request.files:
            content = self._mount_file(file.sha256_hex)
            parts = [content[i : i + BLOCK_BYTES] for i in range(0, len(content), BLOCK_BYTES)]
            blocks = tuple(self.blocks.put(part) for part in parts)
            mode = file.mode or 0o644
            entry = Entry(api.FileEntry.FILE, int(self.world.now()), mode, len(content), blocks)
            put_entry(volume, _clean(file.filename), entry)
        volume.commits += 1
        return EMPTY

    async def put_files2(
        self, request: api.VolumePutFiles2Request, _: CopyHolder | None
    ) -> api.VolumePutFiles2Response:
        """Nothing is written as long as a block is missing."""
        volume = self.volume(request.volume_id)
        for file in request.files:
            self._check_new(volume, file.path, is_forbidden=request.disallow_overwrite_existing_files)
        missing = [
            api.VolumePutFiles2Response.MissingBlock(
                file_index=i, block_index=j, put_url=f"{self.world.http_url}/blocks/{block.contents_sha256.hex()}"
            )
            for i, file in enumerate(request.files)
            for j, block in enumerate(file.blocks)
            if not self.blocks.has(block.contents_sha256)
        ]
        if not missing:
            for file in request.files:
                blocks = tuple(b.contents_sha256 for b in file.blocks)
                mode = file.mode or 0o644
                put_entry(
                    volume,
                    _clean(file.path),
                    Entry(api.FileEntry.FILE, int(self.world.now()), mode, file.size, blocks),
                )
            volume.commits += 1
        return api.VolumePutFiles2Response(missing_blocks=missing)

    def _check_new(self, volume: Volume, path: str, *, is_forbidden: bool) -> None:
        if is_forbidden and _clean(path) in volume.tree:
            raise GRPCError(Status.ALREADY_EXISTS, f"{path}: already exists")

    async def remove_file(self, request: Any, _: CopyHolder | None) -> empty_pb2.Empty:  # Any: of either protocol
        volume, path = self.volume(request.volume_id), _clean(request.path)
        found = below(volume, path)
        if not found:
            raise GRPCError(Status.NOT_FOUND, f"No such file or directory: {request.path}")
        if volume.tree[found[0]].kind == api.FileEntry.DIRECTORY and not request.recursive:
            raise GRPCError(Status.INVALID_ARGUMENT, f"{request.path} is a directory: recursive is needed")
        for name in found:
            del volume.tree[name]
        volume.commits += 1
        return EMPTY

    async def commit(self, request: api.VolumeCommitRequest, holder: CopyHolder | None) -> api.VolumeCommitResponse:
        copy = self._copy(request.volume_id, holder)
        if copy.is_read_only:
            raise GRPCError(Status.FAILED_PRECONDITION, "volume is mounted read-only")
        commit(self.blocks, copy)
        await self.world.notify()
        return api.VolumeCommitResponse(skip_reload=copy.volume.version == api.VOLUME_FS_VERSION_V2)

    async def reload(self, request: api.VolumeReloadRequest, holder: CopyHolder | None) -> empty_pb2.Empty:
        """What was not committed is, as the documentation says it may."""
        copy = self._copy(request.volume_id, holder)
        assert holder is not None
        if opened := holder.open_paths(copy):
            raise GRPCError(
                Status.FAILED_PRECONDITION,
                f"there are open files preventing the operation: path {opened[0] or '.'} is open from a process",
            )
        commit(self.blocks, copy)
        refresh(self.blocks, copy)
        return EMPTY

    def _copy(self, volume_id: str, holder: CopyHolder | None) -> Copy:
        self.volume(volume_id)
        if holder is None or volume_id not in holder.copies:
            raise GRPCError(Status.FAILED_PRECONDITION, f"volume {volume_id} is not mounted in the caller")
        return holder.copies[volume_id]


def _metadata(volume: Volume) -> api.VolumeMetadata:
    return api.VolumeMetadata(
        version=volume.version, name=volume.name, creation_info=api.CreationInfo(created_at=volume.created_at)
    )


def _clean(path: str) -> str:
    """Without slashes at its ends; `..` is refused as the server must."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise GRPCError(Status.INVALID_ARGUMENT, f"{path}: not a path in a volume")
    return "/".join(parts)


def fsck(volumes: Volumes) -> list[str]:
    """Committed files whose blocks are missing or are not what their name says."""
    found = []
    for volume in volumes.volumes.values():
        for path, entry in volume.tree.items():
            for block in entry.blocks:
                if not volumes.blocks.has(block) or hashlib.sha256(volumes.blocks.get(block)).digest() != block:
                    found.append(f"{volume.name}: {path}: block {block.hex()} is missing or damaged")
    return found


def described(volume: Volume) -> dict[str, Any]:  # Any: JSON
    return {
        "id": volume.id,
        "name": volume.name,
        "version": volume.version,
        "commits": volume.commits,
        "tree": {
            path: {**dataclasses.asdict(entry), "blocks": [b.hex() for b in entry.blocks]}
            for path, entry in sorted(volume.tree.items())
        },
    }
