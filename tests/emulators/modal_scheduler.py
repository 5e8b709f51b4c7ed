"""Which containers of the emulated Modal run, and what becomes of an input when one ends."""

import os
from typing import Any

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_calls import Calls
from modal_containers import Cluster, Container, Runner
from modal_logs import INFO, Logs
from modal_proto import api_pb2 as api
from modal_world import App, Function, Input, World

Result = api.GenericResult


class Scheduler:
    def __init__(self, world: World, runner: Runner, logs: Logs) -> None:
        self.world, self.runner, self.logs = world, runner, logs
        self.calls = Calls(world, kill=self._kill_for_cancellation, tell=self._tell_cancelled, is_alive=self._is_alive)
        runner.ended = self._ended
        self.containers: dict[str, Container] = {}
        self._num_clusters = os.getpid()  # emulators side by side share the loopback, and so the addresses
        self.rpcs: dict[str, Any] = {  # Any: an async function over two messages of the same method
            **self.calls.rpcs,
            "ContainerStop": self.stop,
            "ClusterGet": self.cluster_get,
            "TaskList": self.list_containers,
            "TaskGetInfo": self.info,
        }

    def live(self, function: Function | None = None) -> list[Container]:
        return [c for c in self.containers.values() if c.state != "dead" and function in (None, c.function)]

    async def run(self) -> None:
        """Starts containers as inputs come, for ever."""
        while True:
            version = self.world.version
            for function in list(self.world.functions.values()):
                await self._fill(function)
            moments = [i.not_before for i in self.world.inputs.values() if i.output is None and i.container_id is None]
            moments += [f.not_before for f in self.world.functions.values()]
            ahead = [m - self.world.now() for m in moments if m > self.world.now()]
            await self.world.wait_for(lambda: self.world.version != version, timeout_s=min(ahead, default=60.0))  # noqa: B023

    async def _fill(self, function: Function) -> None:
        app = self.world.apps[function.app_id]
        waiting = self.calls.waiting(function)
        if app.is_stopped or not waiting or function.not_before > self.world.now():
            return
        live = self.live(function)
        size = max(function.definition._experimental_group_size, 1)
        if size > 1 and any(c.state == "stopping" for c in live):
            return
        coming = sum(c.can_take_input and c.rank == 0 for c in live)
        settings = function.definition.autoscaler_settings
        limit = settings.max_containers or function.definition.concurrency_limit or 1 << 31
        for _ in range(len(waiting) - coming):
            capacity = self.world.behaviour.capacity
            if len(live) + size > limit or (capacity is not None and len(self.live()) + size > capacity):
                await self._tell_of_queue(function, waiting)
                return
            live += await self._start(app, function, size)
        function.is_queue_told = False

    async def _tell_of_queue(self, function: Function, waiting: list[Input]) -> None:
        if not function.is_queue_told:
            function.is_queue_told = True
            for input in waiting:
                await self.logs.add(
                    "",
                    INFO,
                    function.app_id,
                    function_id=function.id,
                    call_id=input.call_id,
                    input_id=input.id,
                    state=api.TASK_STATE_QUEUED,
                )

    async def _start(self, app: App, function: Function, size: int) -> list[Container]:
        definition = api.Function()
        definition.CopyFrom(function.definition)
        cluster = None
        if definition._experimental_group_size:
            self._num_clusters += 1
            cluster = Cluster(self.world.new_id("cu"), size, self._num_clusters)
        started = [
            Container(self.world.new_id("ta"), app, function, definition, cluster, rank, self.world.now())
            for rank in range(size)
        ]
        for container in started:
            self.containers[container.id] = container
            if cluster is not None:
                cluster.containers.append(container)
        for container in started:
            await self.runner.start(container)
        return started

    def _is_alive(self, container_id: str) -> bool:
        return self.containers[container_id].state != "dead"

    async def cluster_get(self, request: api.ClusterGetRequest, _: object) -> api.ClusterGetResponse:
        for container in self.containers.values():
            if container.cluster is not None and container.cluster.id == request.cluster_id:
                ids = [c.id for c in container.cluster.containers]
                stats = api.ClusterStats(app_id=container.app.id, task_ids=ids, cluster_id=request.cluster_id)
                return api.ClusterGetResponse(cluster=stats)
        raise GRPCError(Status.NOT_FOUND, f"Cluster {request.cluster_id} not found")

    async def list_containers(self, request: api.TaskListRequest, _: object) -> api.TaskListResponse:
        found = [c for c in self.live() if request.app_id in ("", c.app.id)]
        return api.TaskListResponse(
            tasks=[
                api.TaskStats(task_id=c.id, app_id=c.app.id, app_description=c.app.description, started_at=c.started_at)
                for c in found
            ]
        )

    async def info(self, request: api.TaskGetInfoRequest, _: object) -> api.TaskGetInfoResponse:
        container = self.container(request.task_id)
        return api.TaskGetInfoResponse(
            app_id=container.app.id, info=api.TaskInfo(id=container.id, started_at=container.started_at)
        )

    def container(self, id: str) -> Container:
        if id not in self.containers:
            raise GRPCError(Status.NOT_FOUND, f"Container {id} not found")
        return self.containers[id]

    async def stop(self, request: api.ContainerStopRequest, _: object) -> api.ContainerStopResponse:
        """Its input goes on elsewhere."""
        container = self.container(request.task_id)
        if request.graceful:
            container.state, container.end = "stopping", "done"
            await self.world.notify()
        else:
            await self.interrupt(container)
        return api.ContainerStopResponse()

    # How containers end.

    async def interrupt(self, container: Container) -> None:
        """Preempt it; a cluster as a whole."""
        for member in container.cluster.containers if container.cluster else [container]:
            await self.runner.interrupt(member)

    async def stop_app(self, app: App) -> None:
        """Kills its containers, and ends what waits."""
        for container in self.live():
            if container.app is app:
                self.runner.kill(container, "stopped")
        for input in self.world.inputs_of_app(app.id):
            if input.output is None and input.container_id is None:
                self.calls.terminate(input, "the app was stopped")

    async def _kill_for_cancellation(self, container_id: str) -> None:
        self.runner.kill(self.containers[container_id], "cancelled")

    async def _tell_cancelled(self, input: Input) -> None:
        for container in self.live():
            if container.input is input:
                container.cancellations.append(input.id)

    def end_cluster(self, container: Container) -> None:
        for member in container.cluster.containers if container.cluster else []:
            if member is not container and member.state != "dead" and member.end is None:
                self.runner.kill(member, "cluster")

    def end_cluster_after_grace(self, container: Container) -> None:
        """The result is there, or not wanted: the others may finish what they do, and no more."""
        for member in container.cluster.containers if container.cluster else []:
            if member is not container:
                self.runner.kill_after_grace(member, "cluster")

    async def _ended(self, container: Container) -> None:
        input, container.input = container.input, None
        is_crash = container.end in (None, "startup") and (input is not None or not container.num_inputs)
        if input is not None and input.container_id == container.holder_id:
            self._settle(container, input)
        elif is_crash and not container.app.is_stopped and (not container.cluster or container.rank == 0):
            self._count_crash(container, None)
        if container.end not in ("done", "idle", None) or is_crash:
            self.end_cluster(container)

    def _settle(self, container: Container, input: Input) -> None:
        match container.end:
            case "timeout":
                seconds = container.definition.timeout_secs
                exception = f"Function execution timed out after {seconds} s"
                result = Result(status=Result.GENERIC_STATUS_TIMEOUT, exception=exception)
                self.calls.fail(input, result, "timeout")
            case "cancelled":
                self.calls.terminate(input, "Input was cancelled by user")
            case "stopped":
                self.calls.terminate(input, "the app was stopped")
            case "preempted" | "lost" | "cluster" | "idle" | "done":
                self.calls.requeue(input, container.end)
            case _:
                self._count_crash(container, input)

    def _count_crash(self, container: Container, input: Input | None) -> None:
        """Deployed apps try for ever, later and later; others fail what waits after some."""
        function = container.function
        function.crashes += 1
        backoff_s = min(self.world.behaviour.crash_backoff_s * 2 ** (function.crashes - 1), 30.0)
        function.not_before = self.world.now() + backoff_s
        if input is not None:
            self.calls.requeue(input, "crashed")
        if not container.app.is_deployed and function.crashes >= self.world.behaviour.crashes_of_ephemeral:
            result = container.failure or Result(
                status=Result.GENERIC_STATUS_INTERNAL_FAILURE,
                exception=f"the container exited with status {container.exit_status}",
            )
            for each in self.calls.waiting(function):
                each.retry_count = function.definition.retry_policy.retries
                self.calls.fail(each, result, "crashed")
