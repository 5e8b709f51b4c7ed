"""The containers of the emulated Modal: real processes that run the client's own entrypoint, and what ends them."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from modal_images import Images
from modal_logs import STDERR, STDOUT, Logs
from modal_place import Place, describe, furnish, python_path
from modal_proto import api_pb2 as api
from modal_volume_store import Copy, commit, make_copy, open_inode_paths
from modal_volumes import Volumes
from modal_world import App, Function, Input, World

End = Literal["timeout", "startup", "preempted", "cancelled", "lost", "stopped", "cluster", "idle", "done"]


@dataclass
class Cluster:
    id: str
    size: int
    number: int
    containers: "list[Container]" = field(default_factory=list)
    num_said_hello: int = 0

    def address(self, rank: int) -> str:
        return f"127.{100 + self.number // 250 % 100}.{self.number % 250 + 1}.{rank + 1}"


@dataclass
class Container:
    id: str
    app: App
    function: Function
    definition: api.Function
    """As it was when the container started, whatever is deployed later."""
    cluster: Cluster | None
    rank: int
    started_at: float
    copies: dict[str, Copy] = field(default_factory=dict)
    place: Place | None = None
    pid: int = 0
    """Of its first process, as seen from outside."""
    input: Input | None = None
    last_input: Input | None = None
    """Whose what it prints is."""
    num_inputs: int = 0
    state: Literal["starting", "ready", "stopping", "dead"] = "starting"
    end: End | None = None
    """Why it was made to end; None: by itself."""
    exit_status: int | None = None
    cancellations: list[str] = field(default_factory=list)
    heartbeat_at: float = 0.0
    failure: api.GenericResult | None = None
    """What it reported of itself."""
    watchers: list["asyncio.Task[Any]"] = field(default_factory=list)

    @property
    def holder_id(self) -> str:
        """The container that the input counts as running in: the first of a cluster."""
        return self.cluster.containers[0].id if self.cluster else self.id

    @property
    def is_single_use(self) -> bool:
        return self.definition.single_use_containers or self.definition.max_inputs == 1

    @property
    def can_take_input(self) -> bool:
        return (
            self.state in ("starting", "ready") and self.input is None and not (self.num_inputs and self.is_single_use)
        )

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if self.pid:
                os.kill(self.pid, number)

    def open_paths(self, copy: Copy) -> list[str]:
        """What any process in it holds open of a volume, its working directory among it."""
        inodes, found = open_inode_paths(copy), []
        for process in Path("/proc").iterdir():
            if not process.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if (process / "ns/pid").readlink() != Path(f"/proc/{self.pid}/ns/pid").readlink():
                    continue
                for link in (process / "cwd", *(process / "fd").iterdir()):
                    with contextlib.suppress(OSError):
                        status = link.stat()
                        if (path := inodes.get((status.st_dev, status.st_ino))) is not None:
                            found.append(path)
        return found


class Runner:
    """Starts containers and sees them end; `ended` is told of each."""

    def __init__(
        self, world: World, images: Images, volumes: Volumes, logs: Logs, *, sites: list[Path], env: dict[str, str]
    ) -> None:
        self.world, self.images, self.volumes, self.logs = world, images, volumes, logs
        self.sites, self.env = sites, env
        self.ended: Callable[[Container], Coroutine[Any, Any, None]]

    async def start(self, container: Container) -> None:
        try:
            command = self._furnish(container)
        except Exception as e:
            await self._say(container, f"emulator: the container cannot be made: {e!r}\n")
            raise
        told, tell = os.pipe()
        process = await asyncio.create_subprocess_exec(
            *command,
            str(tell),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(tell,),
            start_new_session=True,
        )
        os.close(tell)
        number = await asyncio.get_running_loop().run_in_executor(None, _read_all, told)
        container.pid = int(number or 0)
        container.heartbeat_at = self.world.now()
        self.world.start(self._see_to_its_end(container, process))
        if container.end is not None:  # it was made to end in this moment
            container.signal(signal.SIGKILL)
        startup_s = container.definition.startup_timeout_secs or container.definition.timeout_secs
        self.watch(container, self._end_at(container, lambda: container.started_at + startup_s, "startup"))
        if (timeout_s := self.world.behaviour.heartbeat_timeout_s) is not None:
            self.watch(container, self._end_at(container, lambda: container.heartbeat_at + timeout_s, "lost"))
        self.watch(container, self._commit_in_background(container))

    def _furnish(self, container: Container) -> list[str]:
        definition, place = container.definition, Place(self.world.directory / "containers" / container.id)
        container.place = place
        files = [file for mount_id in definition.mount_ids for file in self.images.mounted(mount_id)]
        furnish(place, files)
        volumes = []
        for mount in definition.volume_mounts:
            copy = container.copies.get(mount.volume_id) or make_copy(
                self.volumes.blocks,
                self.volumes.volume(mount.volume_id),
                place.directory / mount.volume_id,
                sub_path=mount.sub_path,
                is_read_only=mount.read_only,
                has_background_commits=mount.allow_background_commits,
            )
            container.copies[mount.volume_id] = copy
            volumes.append((copy.directory / mount.sub_path.strip("/"), mount.mount_path, mount.read_only))
        arguments = api.ContainerArguments(
            task_id=container.id,
            function_id=container.function.id,
            app_id=container.app.id,
            function_def=definition,
            environment_name=container.app.environment,
            app_layout=self.layout(container.app),
        )
        place.arguments.write_bytes(arguments.SerializeToString())
        address = container.cluster.address(container.rank) if container.cluster else "127.0.0.1"
        return describe(
            place, volumes=volumes, address=address, python_path=self.sites, env=self._environment(container)
        )

    layout: Callable[[App], api.AppLayout]

    def _environment(self, container: Container) -> dict[str, str]:
        image_env = self.images.env(container.definition.image_id)
        env = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            **self.env,
            **image_env,
        }
        for secret_id in container.definition.secret_ids:
            env |= self.images.secret(secret_id).values
        return env | {
            "PYTHONPATH": python_path(self.sites, image_env),
            "MODAL_SERVER_URL": self.world.server_url,
            "MODAL_OVERRIDE_HEADERS": f"x-emu-task-id:{container.id}",
            "MODAL_CONFIG_PATH": "/modal/none.toml",
            "MODAL_CONTAINER_ARGUMENTS_PATH": "/modal/arguments.pb",
            "MODAL_IS_REMOTE": "1",
            "MODAL_TASK_ID": container.id,
            "MODAL_IMAGE_ID": container.definition.image_id,
            "MODAL_ENVIRONMENT": container.app.environment,
            "MODAL_CLOUD_PROVIDER": "CLOUD_PROVIDER_EMULATED",
            "MODAL_REGION": "nowhere-1",
        }

    def watch(self, container: Container, work: Coroutine[Any, Any, None]) -> "asyncio.Task[Any]":
        """Runs until the container ends."""
        task = self.world.start(work)
        container.watchers.append(task)
        return task

    def watch_input(self, container: Container) -> "asyncio.Task[Any]":
        started_at, input = self.world.now(), container.input
        timeout_s = container.definition.timeout_secs
        return self.watch(
            container,
            self._end_at(
                container, lambda: started_at + timeout_s, "timeout", is_over=lambda: container.input is not input
            ),
        )

    async def _end_at(
        self, container: Container, moment: Callable[[], float], end: End, *, is_over: Callable[[], bool] | None = None
    ) -> None:
        is_over = is_over or (lambda: end == "startup" and container.state != "starting")
        while self.world.now() < moment():
            left = moment() - self.world.now()
            await self.world.wait_for(lambda: is_over() or self.world.now() >= moment(), timeout_s=min(left, 3600.0))
            if is_over():
                return
        self.kill(container, end)

    async def _commit_in_background(self, container: Container) -> None:
        while (interval_s := self.world.behaviour.background_commit_s) is not None:
            await asyncio.sleep(interval_s)
            for copy in container.copies.values():
                if copy.has_background_commits:
                    commit(self.volumes.blocks, copy)
            await self.world.notify()

    def kill(self, container: Container, end: End) -> None:
        """SIGKILL for every process in it: what was not committed is lost."""
        if container.state != "dead":
            container.end = container.end if container.end in ("timeout", "cancelled", "stopped") else end
            container.state = "stopping"
            container.signal(signal.SIGKILL)

    async def interrupt(self, container: Container, end: End = "preempted") -> None:
        """SIGINT for its first process, and SIGKILL for all after the grace."""
        if container.state == "dead" or container.end is not None:
            return
        container.end, container.state = end, "stopping"
        container.signal(signal.SIGINT)
        await self._say(
            container,
            "Runner interrupted due to worker preemption. Your Function will be restarted with the same input.\n",
        )
        self.kill_after_grace(container, end)

    def kill_after_grace(self, container: Container, end: End) -> None:
        if container.state != "dead":
            self.watch(container, self._kill_after_grace(container, end))

    async def _kill_after_grace(self, container: Container, end: End) -> None:
        await asyncio.sleep(self.world.behaviour.preemption_grace_s)
        self.kill(container, end)

    async def _say(self, container: Container, text: str) -> None:
        where = {"function_id": container.function.id, "container_id": container.id}
        if container.input is not None:
            where |= {"input_id": container.input.id, "call_id": container.input.call_id}
        await self.logs.add(text, STDERR, container.app.id, **where)

    async def _see_to_its_end(self, container: Container, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None and process.stderr is not None
        await asyncio.gather(self._log(container, process.stdout, STDOUT), self._log(container, process.stderr, STDERR))
        container.exit_status = await process.wait()
        container.state = "dead"
        for task in container.watchers:
            task.cancel()
        assert container.place is not None
        for name in [copy.directory for copy in container.copies.values()] + [container.place.root]:
            await asyncio.to_thread(shutil.rmtree, name, ignore_errors=True)
        await self.ended(container)
        await self.world.notify()

    async def _log(
        self, container: Container, stream: asyncio.StreamReader, source: "api.FileDescriptor.ValueType"
    ) -> None:
        """Whole lines; the last may lack its end."""
        rest = b""
        while chunk := await stream.read(1 << 16):
            *lines, rest = (rest + chunk).split(b"\n")
            if lines:
                await self._add(container, b"\n".join(lines) + b"\n", source)
        if rest:
            await self._add(container, rest, source)

    async def _add(self, container: Container, content: bytes, source: "api.FileDescriptor.ValueType") -> None:
        input = container.last_input
        for line in re.findall(r"[^\n]*\n|[^\n]+", content.decode(errors="replace")):
            await self.logs.add(
                line,
                source,
                container.app.id,
                function_id=container.function.id,
                container_id=container.id,
                input_id=input.id if input else "",
                call_id=input.call_id if input else "",
            )


def _read_all(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as f:
        return f.read()
