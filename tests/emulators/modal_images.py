"""What the emulated Modal answers about images, and the files and secrets that go into them and beside them."""

import base64
import hashlib
import re
import shlex
import string
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf import empty_pb2
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api
from modal_world import World

EMPTY = empty_pb2.Empty()
SUCCESS, FAILURE = api.GenericResult.GENERIC_STATUS_SUCCESS, api.GenericResult.GENERIC_STATUS_FAILURE
MULTIPART_FROM_BYTES = 1 << 30  # as the service does; a test does not get there


@dataclass
class Image:
    id: str
    request: api.ImageGetOrCreateRequest
    is_built: bool = False
    builds: int = 0


@dataclass
class Secret:
    id: str
    name: str
    environment: str
    values: dict[str, str]
    created_at: float


@dataclass
class Mount:
    id: str
    name: str
    files: list[api.MountFile] = field(default_factory=list)


class Images:
    """Images are not built: what they would run is in their layers, and only their ENV reaches a container."""

    def __init__(self, world: World, files: Path) -> None:
        self.world, self._files = world, files
        files.mkdir(parents=True)
        self.images: dict[str, Image] = {}
        self.secrets: dict[str, Secret] = {}
        self.mounts: dict[str, Mount] = {}
        self.failing: list[tuple[str, str]] = []
        """(text in a layer, what its build prints before it fails)."""
        self.uploaded_bytes = 0
        """Of files for mounts, by either way, and of blobs."""
        self.rpcs: dict[str, Any] = {  # Any: an async function or generator over two messages of the same method
            "ImageGetOrCreate": self.get_or_create,
            "ImageFromId": self.from_id,
            "ImageJoinStreaming": self.join,
            "MountGetOrCreate": self.mount_get_or_create,
            "MountBatchedCheckExistence": self.mount_check,
            "MountPutFile": self.mount_put_file,
            "SecretGetOrCreate": self.secret_get_or_create,
            "SecretGetInfo": self.secret_info,
            "SecretList": self.secret_list,
            "SecretDelete": self.secret_delete,
            "BlobCreate": self.blob_create,
            "BlobGet": self.blob_get,
        }

    async def get_or_create(self, request: api.ImageGetOrCreateRequest, _: object) -> api.ImageGetOrCreateResponse:
        definition = self._content(request.image) + request.builder_version.encode()
        id = f"im-{hashlib.sha256(definition).hexdigest()[:22]}"
        for base in request.image.base_images:
            self._image(base.image_id)
        for secret_id in request.image.secret_ids:
            self.secret(secret_id)
        image = self.images.setdefault(id, Image(id, request))
        if request.force_build:
            image.is_built = False
        answer = api.ImageGetOrCreateResponse(image_id=id)
        if image.is_built:
            answer.result.status = SUCCESS
            answer.metadata.CopyFrom(_image_metadata(request))
        return answer

    def _content(self, image: api.Image) -> bytes:
        """All that decides what is in a layer: the files that it copies, not the mount that they came in."""
        content = api.Image()
        content.CopyFrom(image)
        if image.context_mount_id in self.mounts:
            files = sorted((f.filename, f.sha256_hex) for f in self.mounts[image.context_mount_id].files)
            content.context_mount_id = hashlib.sha256(repr(files).encode()).hexdigest()
        return content.SerializeToString(deterministic=True)

    async def from_id(self, request: api.ImageFromIdRequest, _: object) -> api.ImageFromIdResponse:
        image = self._image(request.image_id)
        return api.ImageFromIdResponse(image_id=image.id, metadata=_image_metadata(image.request))

    async def join(
        self, request: api.ImageJoinStreamingRequest, _: object
    ) -> AsyncIterator[api.ImageJoinStreamingResponse]:
        """Builds, which is to print the layer's commands; fails if `failing` says so."""
        image = self._image(request.image_id)
        commands = list(image.request.image.dockerfile_commands)
        for number, command in enumerate(commands, 1):
            log = api.TaskLogs(
                data=f"=> Step {number}: {command}\n",
                file_descriptor=api.FILE_DESCRIPTOR_STDOUT,
                timestamp=self.world.now(),
            )
            yield api.ImageJoinStreamingResponse(task_logs=[log], entry_id=f"{number}-0")
        why = next((log for text, log in self.failing if any(text in c for c in commands)), None)
        if why is not None:
            log = api.TaskLogs(data=why, file_descriptor=api.FILE_DESCRIPTOR_STDERR, timestamp=self.world.now())
            result = api.GenericResult(status=FAILURE, exception=why)
            yield api.ImageJoinStreamingResponse(task_logs=[log], result=result, eof=True)
            return
        image.is_built, image.builds = True, image.builds + (not image.is_built)
        yield api.ImageJoinStreamingResponse(
            result=api.GenericResult(status=SUCCESS), metadata=_image_metadata(image.request), eof=True
        )

    def _image(self, id: str) -> Image:
        if id not in self.images:
            raise GRPCError(Status.NOT_FOUND, f"Image {id} not found")
        return self.images[id]

    def layers(self, id: str) -> list[Image]:
        """From the base up."""
        image = self._image(id)
        return [layer for base in image.request.image.base_images for layer in self.layers(base.image_id)] + [image]

    def env(self, image_id: str) -> dict[str, str]:
        """What the ENV lines of all layers say."""
        found: dict[str, str] = {}
        for layer in self.layers(image_id):
            for command in layer.request.image.dockerfile_commands:
                if match := re.fullmatch(r"\s*ENV\s+(.*)", command, re.DOTALL):
                    found |= _env_line(match[1], found)
        return found

    async def mount_get_or_create(
        self, request: api.MountGetOrCreateRequest, _: object
    ) -> api.MountGetOrCreateResponse:
        if request.deployment_name and not request.files:  # the client's own code, of which the venv has a copy
            mount = Mount(f"mo-{request.deployment_name}", request.deployment_name)
        else:
            missing = [f.filename for f in request.files if not self._path(f.sha256_hex).exists()]
            if missing:
                raise GRPCError(Status.FAILED_PRECONDITION, f"files were not uploaded: {', '.join(missing)}")
            mount = Mount(self.world.new_id("mo"), request.deployment_name, list(request.files))
        self.mounts[mount.id] = mount
        checksum = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
        return api.MountGetOrCreateResponse(
            mount_id=mount.id, handle_metadata=api.MountHandleMetadata(content_checksum_sha256_hex=checksum)
        )

    async def mount_check(
        self, request: api.MountBatchedCheckExistenceRequest, _: object
    ) -> api.MountBatchedCheckExistenceResponse:
        missing = [sha for sha in request.sha256_hex_hashes if not self._path(sha).exists()]
        return api.MountBatchedCheckExistenceResponse(missing_sha256_hex_hashes=missing)

    async def mount_put_file(self, request: api.MountPutFileRequest, _: object) -> api.MountPutFileResponse:
        path, data = self._path(request.sha256_hex), None
        if request.WhichOneof("data_oneof") == "data_blob_id":
            data = self.blob(request.data_blob_id)
        elif request.data or request.sha256_hex == hashlib.sha256(b"").hexdigest():
            data = request.data
            self.uploaded_bytes += len(data)
        if data is not None:
            if hashlib.sha256(data).hexdigest() != request.sha256_hex:
                raise GRPCError(Status.INVALID_ARGUMENT, f"content is not {request.sha256_hex}")
            path.write_bytes(data)
        return api.MountPutFileResponse(exists=path.exists())

    def mount_file(self, sha256_hex: str) -> bytes:
        return self._path(sha256_hex).read_bytes()

    def mounted(self, mount_id: str) -> list[tuple[str, Path, int]]:
        """(absolute path in the container, its content, its mode)."""
        if mount_id not in self.mounts:
            raise GRPCError(Status.NOT_FOUND, f"Mount {mount_id} not found")
        return [(f.filename, self._path(f.sha256_hex), f.mode or 0o644) for f in self.mounts[mount_id].files]

    def _path(self, sha256_hex: str) -> Path:
        if not re.fullmatch("[0-9a-f]{64}", sha256_hex):
            raise GRPCError(Status.INVALID_ARGUMENT, f"{sha256_hex!r} is not a SHA-256")
        return self._files / sha256_hex

    async def secret_get_or_create(
        self, request: api.SecretGetOrCreateRequest, _: object
    ) -> api.SecretGetOrCreateResponse:
        environment, kind = self.world.environment(request.environment_name), request.object_creation_type
        name = request.deployment_name
        secret = next(
            (s for s in self.secrets.values() if name and (s.name, s.environment) == (name, environment)), None
        )
        if secret is None:
            if kind == api.OBJECT_CREATION_TYPE_UNSPECIFIED:
                raise GRPCError(Status.NOT_FOUND, f"Secret '{name}' not found in environment '{environment}'")
            secret = Secret(self.world.new_id("st"), name, environment, dict(request.env_dict), self.world.now())
            self.secrets[secret.id] = secret
        elif kind == api.OBJECT_CREATION_TYPE_CREATE_FAIL_IF_EXISTS:
            raise GRPCError(Status.ALREADY_EXISTS, f"Secret '{name}' already exists")
        elif kind == api.OBJECT_CREATION_TYPE_CREATE_OVERWRITE_IF_EXISTS:
            secret.values = dict(request.env_dict)
        if missing := [key for key in request.required_keys if key not in secret.values]:
            raise GRPCError(Status.NOT_FOUND, f"Secret '{name}' is missing key(s): {', '.join(missing)}")
        return api.SecretGetOrCreateResponse(secret_id=secret.id, metadata=_secret_metadata(secret))

    def secret(self, id: str) -> Secret:
        if id not in self.secrets:
            raise GRPCError(Status.NOT_FOUND, f"Secret {id} not found")
        return self.secrets[id]

    async def secret_info(self, request: api.SecretGetInfoRequest, _: object) -> api.SecretGetInfoResponse:
        return api.SecretGetInfoResponse(metadata=_secret_metadata(self.secret(request.secret_id)))

    async def secret_list(self, request: api.SecretListRequest, _: object) -> api.SecretListResponse:
        environment = self.world.environment(request.environment_name)
        before = request.pagination.created_before or float("inf")
        found = sorted(
            (s for s in self.secrets.values() if s.name and s.environment == environment and s.created_at < before),
            key=lambda s: -s.created_at,
        )
        items = [
            api.SecretListItem(label=s.name, secret_id=s.id, created_at=s.created_at, metadata=_secret_metadata(s))
            for s in found[: request.pagination.max_objects or None]
        ]
        return api.SecretListResponse(items=items, environment_name=environment)

    async def secret_delete(self, request: api.SecretDeleteRequest, _: object) -> empty_pb2.Empty:
        del self.secrets[self.secret(request.secret_id).id]
        return EMPTY

    async def blob_create(self, request: api.BlobCreateRequest, _: object) -> api.BlobCreateResponse:
        if request.content_length > MULTIPART_FROM_BYTES:
            raise GRPCError(Status.UNIMPLEMENTED, "the emulator takes no blobs that need several parts")
        id = "bl-" + base64.b64decode(request.content_sha256_base64).hex()
        url = f"{self.world.http_url}/blobs/{id}"
        return api.BlobCreateResponse(
            blob_id=id, upload_url=url, blob_ids=[id], upload_urls=api.UploadUrlList(items=[url])
        )

    async def blob_get(self, request: api.BlobGetRequest, _: object) -> api.BlobGetResponse:
        self.blob(request.blob_id)
        return api.BlobGetResponse(download_url=f"{self.world.http_url}/blobs/{request.blob_id}")

    def blob(self, id: str) -> bytes:
        path = self._path(id.removeprefix("bl-"))
        if not path.exists():
            raise GRPCError(Status.NOT_FOUND, f"Blob {id} not found")
        return path.read_bytes()

    def put_blob(self, id: str, content: bytes) -> None:
        self.uploaded_bytes += len(content)
        self._path(id.removeprefix("bl-")).write_bytes(content)


def _env_line(line: str, known: dict[str, str]) -> dict[str, str]:
    """Both ways of a Dockerfile, `A=1 B=2` and `A 1`; $NAME is what an earlier line said."""
    words = shlex.split(line)
    pairs = [word.partition("=")[::2] for word in words] if "=" in words[0] else [(words[0], " ".join(words[1:]))]
    return {name: string.Template(value).safe_substitute(known) for name, value in pairs}


def _image_metadata(request: api.ImageGetOrCreateRequest) -> api.ImageMetadata:
    return api.ImageMetadata(image_builder_version=request.builder_version, python_version_info="Python 3.11.9")


def _secret_metadata(secret: Secret) -> api.SecretMetadata:
    return api.SecretMetadata(
        name=secret.name,
        keys=sorted(secret.values),
        environment_name=secret.environment,
        creation_info=api.CreationInfo(created_at=secret.created_at),
    )
