"""What tests may ask of the emulated Modal and do to it, as JSON over HTTP; and the URLs that clients up- and download.

GET  /state /rpcs /requests/RPC /unknown /logs /fsck /volumes/NAME /volumes/NAME/files/PATH
POST /behaviour /clock /faults /faults/heal /faults/N/reached /faults/N/release /tokens /secrets /failing
POST /containers/ID/preempt|kill|freeze|thaw
PUT and GET /blocks/SHA256 /blobs/ID: for clients.
"""

import asyncio
import dataclasses
import hashlib
import itertools
import signal
from typing import TYPE_CHECKING, Any

from aiohttp import web
from modal_calls import Result
from modal_containers import Container
from modal_faults import Fault
from modal_images import Secret
from modal_logs import Line
from modal_proto import api_pb2 as api
from modal_volumes import described
from modal_volumes import fsck as volumes_fsck
from modal_world import Call, Input

if TYPE_CHECKING:
    from modal_control_plane import ControlPlane


class ControlApi:
    def __init__(self, plane: "ControlPlane") -> None:
        self.plane, self.world = plane, plane.world

    def application(self) -> web.Application:
        app = web.Application(client_max_size=1 << 32)
        app.add_routes(
            [
                web.get("/state", self.state),
                web.get("/rpcs", self.rpcs),
                web.get("/requests/{rpc}", self.requests),
                web.get("/logs", self.logs),
                web.get("/fsck", self.fsck),
                web.get("/volumes/{name}", self.volume),
                web.get("/volumes/{name}/files/{path:.+}", self.volume_file),
                web.post("/behaviour", self.behaviour),
                web.post("/clock", self.clock),
                web.post("/faults", self.add_fault),
                web.post("/faults/heal", self.heal),
                web.post("/faults/{number}/reached", self.fault_reached),
                web.post("/faults/{number}/release", self.fault_release),
                web.post("/tokens", self.tokens),
                web.post("/secrets", self.secrets),
                web.post("/failing", self.failing),
                web.post("/containers/{id}/{deed}", self.container_deed),
                web.put("/blocks/{sha256}", self.put_block),
                web.get("/blocks/{sha256}", self.get_block),
                web.put("/blobs/{id}", self.put_blob),
                web.get("/blobs/{id}", self.get_blob),
            ]
        )
        return app

    async def state(self, _: web.Request) -> web.Response:
        """Apps, calls with their inputs and attempts, containers, images, secrets' names, uploads."""
        world, plane = self.world, self.plane
        return web.json_response(
            {
                "now": world.now(),
                "apps": {
                    a.id: dataclasses.asdict(a) | {"state": api.AppState.Name(a.state)} for a in world.apps.values()
                },
                "functions": {f.id: {"name": f.name, "app_id": f.app_id} for f in world.functions.values()},
                "calls": {c.id: _call(c) for c in world.calls.values()},
                "containers": {c.id: _container(c) for c in plane.scheduler.containers.values()},
                "images": {
                    i.id: {
                        "is_built": i.is_built,
                        "builds": i.builds,
                        "commands": list(i.request.image.dockerfile_commands),
                    }
                    for i in plane.images.images.values()
                },
                "secrets": {s.id: {"name": s.name, "keys": sorted(s.values)} for s in plane.images.secrets.values()},
                "volumes": {v.id: v.name for v in plane.volumes.volumes.values()},
                "uploaded_bytes": plane.volumes.blocks.uploaded_bytes + plane.images.uploaded_bytes,
            }
        )

    async def rpcs(self, _: web.Request) -> web.Response:
        faults = self.plane.faults
        return web.json_response({"counts": faults.counts, "by_clients": faults.by_clients, "unknown": faults.unknown})

    async def requests(self, request: web.Request) -> web.Response:
        return web.json_response(self.plane.faults.recorded(request.match_info["rpc"]))

    async def logs(self, _: web.Request) -> web.Response:
        return web.json_response([_line(line) for line in self.plane.logs.lines])

    async def fsck(self, _request: web.Request) -> web.Response:
        """What is wrong, a sentence each: an input in more than one place, or blocks that are not whole."""
        found = volumes_fsck(self.plane.volumes)
        for input in self.world.inputs.values():
            holders = [c for c in self.plane.scheduler.live() if c.input is input and c.rank == 0]
            if len(holders) > 1:
                found.append(f"{input.id} runs in {', '.join(c.id for c in holders)}")
            spans = [(a.started_at, a.ended_at or float("inf")) for a in input.attempts]
            for (_, ended), (started, _) in itertools.pairwise(spans):
                if started < ended:
                    found.append(f"{input.id}: an attempt was started before the one before it had ended")
        return web.json_response(found)

    async def volume(self, request: web.Request) -> web.Response:
        return web.json_response(described(self._volume(request)))

    async def volume_file(self, request: web.Request) -> web.Response:
        entry = self._volume(request).tree.get(request.match_info["path"])
        if entry is None:
            raise web.HTTPNotFound
        return web.Response(body=self.plane.volumes.blocks.content(entry))

    def _volume(self, request: web.Request) -> Any:
        volume = self.plane.volumes.named(request.match_info["name"], request.query.get("environment", "main"))
        if volume is None:
            raise web.HTTPNotFound
        return volume

    async def behaviour(self, request: web.Request) -> web.Response:
        """Set fields of modal_world.Behaviour; the whole of it as it is then."""
        for name, value in (await request.json()).items():
            if not hasattr(self.world.behaviour, name):
                raise web.HTTPBadRequest(text=f"no such behaviour: {name}")
            setattr(self.world.behaviour, name, value)
        await self.world.notify()
        return web.json_response(dataclasses.asdict(self.world.behaviour))

    async def clock(self, request: web.Request) -> web.Response:
        await self.world.advance((await request.json())["advance_s"])
        return web.json_response({"now": self.world.now()})

    async def add_fault(self, request: web.Request) -> web.Response:
        self.plane.faults.faults.append(Fault(**await request.json()))
        return web.json_response({"number": len(self.plane.faults.faults) - 1})

    def _fault(self, request: web.Request) -> Fault:
        return self.plane.faults.faults[int(request.match_info["number"])]

    async def fault_reached(self, request: web.Request) -> web.Response:
        """Waits until the call that the fault holds has come."""
        try:
            await asyncio.wait_for(self._fault(request).reached.wait(), float(request.query.get("timeout_s", "30")))
        except TimeoutError:
            return web.json_response({"reached": False})
        return web.json_response({"reached": True})

    async def fault_release(self, request: web.Request) -> web.Response:
        self._fault(request).released.set()
        return web.json_response({})

    async def heal(self, _: web.Request) -> web.Response:
        self.plane.faults.heal()
        return web.json_response({})

    async def tokens(self, request: web.Request) -> web.Response:
        self.world.tokens = await request.json()
        return web.json_response({})

    async def secrets(self, request: web.Request) -> web.Response:
        """Make a named secret, as a user does in the web: {"name", "values"}."""
        given = await request.json()
        secret = Secret(self.world.new_id("st"), given["name"], "main", given["values"], self.world.now())
        self.plane.images.secrets[secret.id] = secret
        return web.json_response({"id": secret.id})

    async def failing(self, request: web.Request) -> web.Response:
        """[[text in a layer, log], ...]: builds of such layers fail."""
        self.plane.images.failing = [(text, log) for text, log in await request.json()]
        return web.json_response({})

    async def container_deed(self, request: web.Request) -> web.Response:
        """preempt: SIGINT, and SIGKILL after the grace. kill: SIGKILL, which is taken for a crash. freeze: SIGSTOP."""
        container = self.plane.scheduler.container(request.match_info["id"])
        deeds = {"kill": signal.SIGKILL, "freeze": signal.SIGSTOP, "thaw": signal.SIGCONT}
        deed = request.match_info["deed"]
        if deed == "preempt":
            await self.plane.scheduler.interrupt(container)
        elif deed in deeds:
            container.signal(deeds[deed])
        else:
            raise web.HTTPNotFound(text=f"no such deed: {deed}")
        return web.json_response({"state": container.state})

    async def put_block(self, request: web.Request) -> web.Response:
        content, blocks = await request.read(), self.plane.volumes.blocks
        if blocks.put(content).hex() != request.match_info["sha256"]:
            raise web.HTTPBadRequest(text="the content is not what its address says")
        blocks.uploaded_bytes += len(content)
        return web.Response(body=b"put")

    async def get_block(self, request: web.Request) -> web.Response:
        content = self.plane.volumes.blocks.get(bytes.fromhex(request.match_info["sha256"]))
        first, last = int(request.query["first"]), int(request.query["last"])
        if request.query["pad"] == "1":
            content = content.ljust(last, b"\0")
        return web.Response(body=content[first:last])

    async def put_blob(self, request: web.Request) -> web.Response:
        content = await request.read()
        self.plane.images.put_blob(request.match_info["id"], content)
        return web.Response(headers={"ETag": f'"{hashlib.md5(content).hexdigest()}"'})

    async def get_blob(self, request: web.Request) -> web.Response:
        return web.Response(body=self.plane.images.blob(request.match_info["id"]))


def _call(call: Call) -> dict[str, Any]:
    return {
        "function_id": call.function_id,
        "app_id": call.app_id,
        "created_at": call.created_at,
        "inputs": [_input(i) for i in call.inputs],
    }


def _input(input: Input) -> dict[str, Any]:
    status = Result.GenericStatus.Name(input.output.result.status) if input.output else None
    return {
        "id": input.id,
        "retry_count": input.retry_count,
        "container_id": input.container_id,
        "status": status.removeprefix("GENERIC_STATUS_") if status else None,
        "exception": input.output.result.exception if input.output else None,
        "attempts": [dataclasses.asdict(a) for a in input.attempts],
    }


def _container(container: Container) -> dict[str, Any]:
    return {
        "app_id": container.app.id,
        "function_id": container.function.id,
        "state": container.state,
        "end": container.end,
        "exit_status": container.exit_status,
        "input_id": container.input.id if container.input else None,
        "call_id": container.input.call_id if container.input else None,
        "rank": container.rank,
        "cluster_id": container.cluster.id if container.cluster else None,
        "pid": container.pid,
    }


def _line(line: Line) -> dict[str, Any]:
    return dataclasses.asdict(line)
