"""What a container of the emulated Modal asks of its control plane: what to do, and where to put what came of it."""

import asyncio
from typing import Any

from google.protobuf import empty_pb2
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_containers import Container
from modal_proto import api_pb2 as api
from modal_scheduler import Scheduler
from modal_world import Input

EMPTY = empty_pb2.Empty()
Result = api.GenericResult


class ContainerRequests:
    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler, self.world = scheduler, scheduler.world
        self.runner, self.logs = scheduler.runner, scheduler.logs
        self.rpcs: dict[str, Any] = {  # Any: an async function over two messages of the same method
            "ContainerHello": self.hello,
            "ContainerHeartbeat": self.heartbeat,
            "ContainerLog": self.log,
            "FunctionGetInputs": self.get_inputs,
            "FunctionPutOutputs": self.put_outputs,
            "TaskResult": self.task_result,
            "TaskClusterHello": self.cluster_hello,
        }

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
            lambda: container.state == "stopping" or self.scheduler.calls.waiting(container.function), timeout_s=idle_s
        ):
            if container.num_inputs:
                container.state, container.end = "stopping", "idle"
        waiting = self.scheduler.calls.waiting(container.function)
        if container.state == "stopping" or container.app.is_stopped or not waiting:
            return kill
        self.scheduler.calls.take(waiting[0], container.id)
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
                    self.scheduler.calls.succeed(input, item)
                    self.scheduler.end_cluster_after_grace(container)
            elif input.container_id != container.holder_id:
                continue
            elif status == Result.GENERIC_STATUS_TERMINATED and not input.is_cancelled:
                self.scheduler.calls.requeue(input, "preempted")
            else:
                is_held = self.world.behaviour.is_retry_held and container.is_single_use
                self.scheduler.calls.fail(
                    input, item.result, "failure", item, held_by=container.id if is_held else None
                )
                if input.is_cancelled:
                    self.scheduler.end_cluster_after_grace(container)
                else:
                    self.scheduler.end_cluster(container)
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
