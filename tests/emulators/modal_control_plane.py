"""Modal's control plane on loopback, for the real modal client and its real container entrypoint.

    python modal_control_plane.py --directory DIR [--port 0] [--token ID:SECRET] [--env K=V] [--site DIR] [--until-eof]

Prints one line of JSON once it serves: {"server_url": ..., "control_url": ..., "pid": ...}. It is a process of its own,
so that the death of a client ends no container; SIGTERM ends it and all of them, and so does the end of its standard
input with --until-eof. See README.md here for what is like Modal and what is not, and modal_control_api.py for what
tests may ask and do.

Clean-room: written from the published protocol buffers (modal_proto), the client's own calls and Modal's
documentation. A method that is not in a table here is UNIMPLEMENTED, and listed under /unknown.
"""

import argparse
import asyncio
import functools
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

import grpclib.const
import grpclib.server
from aiohttp import web
from google.protobuf import message_factory
from grpclib.const import Cardinality, Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from modal_apps import Apps
from modal_container_requests import ContainerRequests
from modal_containers import Container, Runner
from modal_control_api import ControlApi
from modal_faults import UNRECORDED, Faults, after, before
from modal_functions import Functions
from modal_images import Images
from modal_logs import Logs
from modal_proto import api_pb2 as api
from modal_scheduler import Scheduler
from modal_volume_store import BlockStore
from modal_volumes import Volumes
from modal_world import Behaviour, World

SERVICE = api.DESCRIPTOR.services_by_name["ModalClient"]
CARDINALITIES = {
    (False, False): Cardinality.UNARY_UNARY,
    (False, True): Cardinality.UNARY_STREAM,
    (True, False): Cardinality.STREAM_UNARY,
    (True, True): Cardinality.STREAM_STREAM,
}
OPEN = frozenset({"TokenFlowCreate", "TokenFlowWait"})
"""What may be asked without a token."""


class ControlPlane:
    def __init__(self, directory: Path, *, tokens: Mapping[str, str], env: dict[str, str], sites: list[Path]) -> None:
        self.world = World(directory, Behaviour())
        self.world.tokens = dict(tokens)
        self.faults = Faults()
        self._answers: dict[tuple[str, str], Any] = {}
        self.logs = Logs(self.world)
        self.images = Images(self.world, directory / "files")
        self.volumes = Volumes(self.world, BlockStore(directory / "blocks"), self.images.mount_file)
        self.functions = Functions(self.world, self._check_objects)
        self.runner = Runner(self.world, self.images, self.volumes, self.logs, sites=sites, env=env)
        self.runner.layout = self.functions.layout
        self.scheduler = Scheduler(self.world, self.runner, self.logs)
        self.apps = Apps(self.world, self.functions, self.scheduler.stop_app)
        asked = ContainerRequests(self.scheduler)
        parts = (self.apps, self.functions, self.images, self.volumes, self.logs, self.scheduler, asked)
        self.rpcs: dict[str, Any] = {name: rpc for part in parts for name, rpc in part.rpcs.items()}
        assert not set(self.rpcs) - {m.name for m in SERVICE.methods}, "a method that Modal does not have"

    def _check_objects(self, definition: api.Function) -> None:
        self.images.layers(definition.image_id)
        for mount_id in definition.mount_ids:
            self.images.mounted(mount_id)
        for secret_id in definition.secret_ids:
            self.images.secret(secret_id)
        for mount in definition.volume_mounts:
            self.volumes.volume(mount.volume_id)

    def __mapping__(self) -> dict[str, grpclib.const.Handler]:
        return {
            f"/{SERVICE.full_name}/{method.name}": grpclib.const.Handler(
                functools.partial(self._serve, method.name),
                CARDINALITIES[method.client_streaming, method.server_streaming],
                message_factory.GetMessageClass(method.input_type),
                message_factory.GetMessageClass(method.output_type),
            )
            for method in SERVICE.methods
        }

    async def _serve(self, name: str, stream: "grpclib.server.Stream[Any, Any]") -> None:
        try:
            await self._answer(name, stream)
        except (GRPCError, StreamTerminatedError, ConnectionError):
            raise
        except Exception as e:
            print(f"{name}:", traceback.format_exc(), file=sys.stderr, flush=True)
            raise GRPCError(Status.INTERNAL, f"the emulator failed: {e!r}") from e

    async def _answer(self, name: str, stream: "grpclib.server.Stream[Any, Any]") -> None:
        request = await stream.recv_message()
        metadata: Mapping[str, Any] = stream.metadata or {}
        container = self._caller(name, metadata)
        due = self.faults.note(name, request, is_container=container is not None)
        await before(due)
        rpc = self.rpcs.get(name)
        if rpc is None:
            self.faults.unknown[name] += 1
            raise GRPCError(Status.UNIMPLEMENTED, f"the emulator does not serve {name}")
        answer = rpc(request, container)
        if hasattr(answer, "__aiter__"):
            async for message in answer:
                await stream.send_message(message)
            await after(due)
        else:
            message = await self._once(name, str(metadata.get("x-idempotency-key", "")), answer)
            await after(due)
            await stream.send_message(message)

    async def _once(self, name: str, key: str, answer: Coroutine[Any, Any, Any]) -> Any:
        """The answer; of a second try by the same client, the first one's, if that was answered."""
        if (name, key) in self._answers and self.world.behaviour.is_idempotent:
            answer.close()
            return self._answers[name, key]
        message = await answer
        if key and name not in UNRECORDED:
            self._answers[name, key] = message
        return message

    def _caller(self, name: str, metadata: Mapping[str, Any]) -> Container | None:
        """The container that asks; None for a client, which must have shown a token."""
        if task_id := metadata.get("x-emu-task-id"):
            container = self.scheduler.container(str(task_id))
            if container.state == "dead":
                raise GRPCError(Status.UNAUTHENTICATED, f"{task_id} has ended")
            return container
        secret = self.world.tokens.get(str(metadata.get("x-modal-token-id", "")))
        if name not in OPEN and (secret is None or secret != metadata.get("x-modal-token-secret")):
            raise GRPCError(Status.UNAUTHENTICATED, "Token validation failed: unknown token id or wrong secret")
        return None

    async def serve(self, port: int, *, is_until_eof: bool) -> None:
        """Until SIGTERM, SIGINT or the end of standard input."""
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        loop.set_exception_handler(_report)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, over.set)
        if is_until_eof:
            loop.add_reader(sys.stdin.fileno(), over.set)
        server = grpclib.server.Server([self])
        await server.start("127.0.0.1", port)
        self.world.server_url = f"http://127.0.0.1:{_port(server._server)}"
        control = web.AppRunner(ControlApi(self).application(), access_log=None, shutdown_timeout=0.2)
        await control.setup()
        site = web.TCPSite(control, "127.0.0.1", 0)
        await site.start()
        self.world.http_url = f"http://127.0.0.1:{_port(site._server)}"
        self.world.start(self.scheduler.run())
        address = {"server_url": self.world.server_url, "control_url": self.world.http_url, "pid": os.getpid()}
        print(json.dumps(address), flush=True)
        await over.wait()
        self.faults.heal()
        for container in self.scheduler.live():
            self.runner.kill(container, "stopped")
        await self.world.wait_for(lambda: not self.scheduler.live(), timeout_s=5.0)
        server.close()
        await control.cleanup()


def _port(server: Any) -> int:  # Any: a private attribute of two libraries
    return int(server.sockets[0].getsockname()[1])


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """A client that has gone away is no news; anything else is an error of the emulator, which a test finds."""
    if not isinstance(context.get("exception"), (StreamTerminatedError, ConnectionError)):
        loop.default_exception_handler(context)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--directory", type=Path, required=True, help="an empty one, for everything that is kept")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--token", action="append", default=[], metavar="ID:SECRET")
    parser.add_argument("--env", action="append", default=[], metavar="K=V", help="in every container")
    parser.add_argument("--site", action="append", default=[], type=Path, help="on every container's PYTHONPATH")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input does")
    given = parser.parse_args()
    logging.getLogger("grpclib").setLevel(logging.CRITICAL)  # an error is an answer here
    given.directory.mkdir(parents=True, exist_ok=True)
    plane = ControlPlane(
        given.directory.resolve(),
        tokens=dict(t.split(":", 1) for t in given.token),
        env=dict(e.split("=", 1) for e in given.env),
        sites=given.site,
    )
    asyncio.run(plane.serve(given.port, is_until_eof=given.until_eof))


if __name__ == "__main__":
    main()
