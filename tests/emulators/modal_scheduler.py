"""Which containers of the emulated Modal run, what they are given to do, and what becomes of an input when one ends."""

import asyncio
from typing import Any

from google.protobuf import empty_pb2
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_calls import Calls
from modal_containers import Cluster, Container, Runner
from modal_logs import INFO, Logs
from modal_proto import api_pb2 as api
from modal_world import App, Function, Input, World

EMPTY = empty_pb2.Empty()
Result = api.GenericResult


class Scheduler:
    def __init__(self, world: World, runner: Runner, logs: Logs) -> None:
        self.world, self.runner, self.logs = world, runner, logs
        self.calls = Calls(world, kill=self._kill_for_cancellation, tell=self._tell_cancelled, is_alive=self._is_alive)
        runner.ended = self._ended
        self.containers: dict[str, Container] = {}
        self._num_clusters = 0
        self.rpcs: dict[str, Any] = {  # Any: an async function over two messages of the same method
            **self.calls.rpcs,
            "ContainerHello": self.hello,
            "ContainerHeartbeat": self.heartbeat,
            "ContainerLog": self.log,
            "ContainerStop": self.stop,
            "FunctionGetInputs": self.get_inputs,
            "FunctionPutOutputs": self.put_outputs,
            "TaskResult": self.task_result,
            "TaskClusterHello": self.cluster_hello,
            "ClusterGet": self.cluster_get,
            "TaskList": self.list,
            "TaskGetInfo": self.info,
        }

    def live(self, function: Function | None = None) -> list[Container]:
        return [c for c in self.containers.values() if c.state != "dead" and function in (None, c.function)]

    async def run(self) -> None:
        """Starts containers as inputs come, for ever."""
        while True:
            for function in list(self.world.functions.values()):
                await self._fill(function)
            version = self.world.version
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

    # What containers ask.

    def _caller(self, container: Container | None) -> Container:
        if container is None:
            raise GRPCError(Status.PERMISSION_DENIED, "only a container may ask this")
        return container

    async def hello(self, _request: empty_pb2.Empty, container: Container | None) -> empty_pb2.Empty:
        self._caller(container)
        return EMPTY

    async def heartbeat(
        self, _request: api.ContainerHeartbeatRequest, container: Container | None
    ) -> api.ContainerHeartbeatResponse:
        """Held back until there is something to cancel, or for a while."""
        container = self._caller(container)
        container.heartbeat_at = self.world.now()
        await self.world.wait_for(lambda: container.cancellations, timeout_s=self.world.behaviour.poll_s)
        answer = api.ContainerHeartbeatResponse()
        if container.cancellations:
            answer.cancel_input_event.input_ids.extend(container.cancellations)
            container.cancellations.clear()
        return answer

    async def log(self, request: api.ContainerLogRequest, container: Container | None) -> empty_pb2.Empty:
        container = self._caller(container)
        for item in request.logs:
            await self.logs.add(item.data, item.file_descriptor, container.app.id, container_id=container.id)
        return EMPTY

    async def get_inputs(
        self, _request: api.FunctionGetInputsRequest, container: Container | None
    ) -> api.FunctionGetInputsResponse:
        container = self._caller(container)
        container.state = "ready" if container.state == "starting" else container.state
        container.function.crashes = 0
        await self.world.notify()
        if container.cluster is not None and container.rank > 0:
            return await self._get_input_of_cluster(container)
        kill = api.FunctionGetInputsResponse(inputs=[api.FunctionGetInputsItem(kill_switch=True)])
        idle_s = self.world.behaviour.idle_s if container.num_inputs else self.world.behaviour.poll_s
        while not await self.world.wait_for(
            lambda: container.state == "stopping" or self.calls.waiting(container.function), timeout_s=idle_s
        ):
            if container.num_inputs:
                container.state, container.end = "stopping", "idle"
        waiting = self.calls.waiting(container.function)
        if container.state == "stopping" or container.app.is_stopped or not waiting:
            return kill
        self.calls.take(waiting[0], container.id)
        return await self._give(container, waiting[0])

    async def _give(self, container: Container, input: Input) -> api.FunctionGetInputsResponse:
        container.input = container.last_input = input
        container.num_inputs += 1
        container.watchers.append(self.runner.watch_input(container))
        await self.world.notify()
        item = api.FunctionGetInputsItem(
            input_id=input.id,
            input=input.message,
            function_call_id=input.call_id,
            function_call_invocation_type=self.world.call(input.call_id).invocation,
            retry_count=input.retry_count,
        )
        return api.FunctionGetInputsResponse(inputs=[item])

    async def _get_input_of_cluster(self, container: Container) -> api.FunctionGetInputsResponse:
        """Every container of a cluster gets the input that the first one has."""
        assert container.cluster is not None
        main = container.cluster.containers[0]
        await self.world.wait_for(lambda: container.state == "stopping" or main.num_inputs > container.num_inputs)
        if container.state == "stopping" or main.input is None:
            return api.FunctionGetInputsResponse(inputs=[api.FunctionGetInputsItem(kill_switch=True)])
        return await self._give(container, main.input)

    async def put_outputs(self, request: api.FunctionPutOutputsRequest, container: Container | None) -> empty_pb2.Empty:
        container = self._caller(container)
        for _ in range(5):  # what it has printed before is in its pipes, and comes into the log first
            await asyncio.sleep(0)
        for item in request.outputs:
            input = container.input
            if input is None or input.id != item.input_id or item.retry_count != input.retry_count:
                continue  # it has been given to another container
            container.input = None
            status = item.result.status
            if status == Result.GENERIC_STATUS_SUCCESS:
                if container.rank == 0 and input.container_id == container.id:
                    self.calls.succeed(input, item)
                    self._end_cluster_after_grace(container)
            elif input.container_id != container.holder_id:
                continue
            elif status == Result.GENERIC_STATUS_TERMINATED and not input.is_cancelled:
                self.calls.requeue(input, "preempted")
            else:
                is_held = self.world.behaviour.is_retry_held and container.is_single_use
                self.calls.fail(input, item.result, "failure", item, held_by=container.id if is_held else None)
                self._end_cluster(container)
        await self.world.notify()
        return EMPTY

    async def task_result(self, request: api.TaskResultRequest, container: Container | None) -> empty_pb2.Empty:
        self._caller(container).failure = request.result
        return EMPTY

    async def cluster_hello(
        self, _request: api.TaskClusterHelloRequest, container: Container | None
    ) -> api.TaskClusterHelloResponse:
        """Answered once every container of the cluster has asked."""
        container = self._caller(container)
        cluster = container.cluster
        if cluster is None:
            raise GRPCError(Status.FAILED_PRECONDITION, f"{container.id} is in no cluster")
        cluster.num_said_hello += 1
        await self.world.notify()
        await self.world.wait_for(lambda: cluster.num_said_hello >= cluster.size or container.state == "dead")
        return api.TaskClusterHelloResponse(
            cluster_id=cluster.id,
            cluster_rank=container.rank,
            container_ips=["::1"] * cluster.size,
            container_ipv4_ips=[cluster.address(rank) for rank in range(cluster.size)],
        )

    async def cluster_get(self, request: api.ClusterGetRequest, _: object) -> api.ClusterGetResponse:
        for container in self.containers.values():
            if container.cluster is not None and container.cluster.id == request.cluster_id:
                ids = [c.id for c in container.cluster.containers]
                stats = api.ClusterStats(app_id=container.app.id, task_ids=ids, cluster_id=request.cluster_id)
                return api.ClusterGetResponse(cluster=stats)
        raise GRPCError(Status.NOT_FOUND, f"Cluster {request.cluster_id} not found")

    async def list(self, request: api.TaskListRequest, _: object) -> api.TaskListResponse:
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

    def _end_cluster(self, container: Container) -> None:
        for member in container.cluster.containers if container.cluster else []:
            if member is not container and member.state != "dead" and member.end is None:
                self.runner.kill(member, "cluster")

    def _end_cluster_after_grace(self, container: Container) -> None:
        """The result is the first container's: the others may finish what they do, and no more."""
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
            self._end_cluster(container)

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
