"""What the emulated Modal answers about calls of functions: their inputs, results, retries and cancellation."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from google.protobuf import empty_pb2
from modal_proto import api_pb2 as api
from modal_world import Attempt, Call, Function, Input, World

EMPTY = empty_pb2.Empty()
Result = api.GenericResult
TERMINATED = Result.GENERIC_STATUS_TERMINATED


class Calls:
    def __init__(
        self,
        world: World,
        *,
        kill: Callable[[str], Awaitable[None]],
        tell: Callable[[Input], Awaitable[None]],
        is_alive: Callable[[str], bool],
    ) -> None:
        """By id of a container: `kill` ends one whose call was cancelled. `tell` lets one know that its input was."""
        self.world, self._kill, self._tell, self._is_alive = world, kill, tell, is_alive
        self.rpcs: dict[str, Any] = {  # Any: an async function over two messages of the same method
            "FunctionMap": self.map,
            "FunctionPutInputs": self.put_inputs,
            "FunctionGetOutputs": self.get_outputs,
            "FunctionCallFromId": self.from_id,
            "FunctionCallGetInfo": self.info,
            "FunctionCallList": self.list_calls,
            "FunctionCallCancel": self.cancel,
            "FunctionGetCurrentStats": self.stats,
        }

    async def map(self, request: api.FunctionMapRequest, _: object) -> api.FunctionMapResponse:
        function = self.world.function(request.function_id)
        call = Call(
            self.world.new_id("fc"),
            function.id,
            function.app_id,
            request.function_call_type,
            request.function_call_invocation_type,
            self.world.now(),
        )
        self.world.calls[call.id] = call
        added = await self._add(call, request.pipelined_inputs)
        return api.FunctionMapResponse(
            function_call_id=call.id,
            pipelined_inputs=added,
            retry_policy=function.definition.retry_policy,
            function_call_jwt=call.id,
            sync_client_retries_enabled=False,
        )

    async def put_inputs(self, request: api.FunctionPutInputsRequest, _: object) -> api.FunctionPutInputsResponse:
        added = await self._add(self.world.call(request.function_call_id), request.inputs)
        return api.FunctionPutInputsResponse(inputs=added)

    async def _add(
        self, call: Call, items: Sequence[api.FunctionPutInputsItem]
    ) -> list[api.FunctionPutInputsResponseItem]:
        added = []
        for item in items:
            message = api.FunctionInput()
            message.CopyFrom(item.input)
            new = Input(self.world.new_id("in"), call.id, item.idx, message, self.world.now())
            self.world.inputs[new.id] = new
            call.inputs.append(new)
            if self.world.app(call.app_id).is_stopped:
                self._finish(new, Result(status=TERMINATED, exception="the app is stopped"), "cancelled")
            added.append(api.FunctionPutInputsResponseItem(idx=item.idx, input_id=new.id, input_jwt=new.id))
        await self.world.notify()
        return added

    async def get_outputs(self, request: api.FunctionGetOutputsRequest, _: object) -> api.FunctionGetOutputsResponse:
        """Those of the range that are there, as soon as there is one; none when nothing came within the timeout."""
        call = self.world.call(request.function_call_id)
        first = request.start_idx if request.HasField("start_idx") else 0
        last = request.end_idx if request.HasField("end_idx") else 1 << 31
        kept_s = self.world.behaviour.outputs_kept_s

        def ready() -> list[api.FunctionGetOutputsItem]:
            since = self.world.now() - kept_s
            return [i.output for i in call.inputs if i.output and i.ended_at >= since and first <= i.index <= last]

        def is_over() -> bool:
            return bool(ready()) or all(i.output for i in call.inputs)

        await self.world.wait_for(is_over, timeout_s=max(0.0, request.timeout))
        outputs = ready()[: request.max_values or None]
        unfinished = sum(i.output is None for i in call.inputs)
        return api.FunctionGetOutputsResponse(
            outputs=outputs, idxs=[o.idx for o in outputs], last_entry_id="0-0", num_unfinished_inputs=unfinished
        )

    async def from_id(self, request: api.FunctionCallFromIdRequest, _: object) -> api.FunctionCallFromIdResponse:
        call = self.world.call(request.function_call_id)
        return api.FunctionCallFromIdResponse(
            function_call_id=call.id,
            num_inputs=len(call.inputs),
            metadata=api.FunctionCallHandleMetadata(app_id=call.app_id, function_id=call.function_id),
        )

    async def info(self, request: api.FunctionCallGetInfoRequest, _: object) -> api.FunctionCallGetInfoResponse:
        return api.FunctionCallGetInfoResponse(info=_call_info(self.world.call(request.function_call_id)))

    async def list_calls(self, request: api.FunctionCallListRequest, _: object) -> api.FunctionCallListResponse:
        function = self.world.function(request.function_id)
        found = [c for c in self.world.calls.values() if c.function_id == function.id]
        return api.FunctionCallListResponse(function_calls=[_call_info(c) for c in found])

    async def stats(self, request: api.FunctionGetCurrentStatsRequest, _: object) -> api.FunctionStats:
        function = self.world.function(request.function_id)
        running = {i.container_id for i in self._open_inputs(function) if i.container_id}
        return api.FunctionStats(
            backlog=sum(i.container_id is None for i in self._open_inputs(function)),
            num_total_tasks=len(running),
            num_running_inputs=len(running),
        )

    def _open_inputs(self, function: Function) -> list[Input]:
        calls = (c for c in self.world.calls.values() if c.function_id == function.id)
        return [i for call in calls for i in call.inputs if i.output is None]

    async def cancel(self, request: api.FunctionCallCancelRequest, _: object) -> empty_pb2.Empty:
        """What waits ends at once. What runs is told, and ends when it has answered; or its container is killed."""
        for input in self.world.call(request.function_call_id).inputs:
            if input.output is not None:
                continue
            input.is_cancelled = True
            if input.container_id is None:
                self._finish(input, Result(status=TERMINATED, exception="Input was cancelled by user"), "cancelled")
            elif request.terminate_containers:
                await self._kill(input.container_id)
            else:
                await self._tell(input)
        await self.world.notify()
        return EMPTY

    # What containers make of inputs. Each answers whether the input was theirs.

    def waiting(self, function: Function) -> list[Input]:
        now = self.world.now()
        return [
            i
            for i in self._open_inputs(function)
            if i.container_id is None
            and i.not_before <= now
            and not (i.held_by is not None and self._is_alive(i.held_by))
        ]

    def take(self, input: Input, container_id: str) -> None:
        input.container_id = container_id
        input.attempts.append(Attempt(container_id, input.retry_count, self.world.now()))

    def succeed(self, input: Input, result: api.FunctionPutOutputsItem) -> None:
        self._finish(input, result.result, "success", result)

    def fail(
        self,
        input: Input,
        result: Result,
        end: str,
        item: api.FunctionPutOutputsItem | None = None,
        *,
        held_by: str | None = None,
    ) -> None:
        """By the function's own fault: used up, or tried again as its policy says."""
        policy = self.world.function(self.world.call(input.call_id).function_id).definition.retry_policy
        if input.is_cancelled:
            exception = result.exception or "Input was cancelled by user"
            self._finish(input, Result(status=TERMINATED, exception=exception), "cancelled")
        elif input.retry_count >= policy.retries:
            self._finish(input, result, end, item)
        else:
            delay_ms = policy.initial_delay_ms * (policy.backoff_coefficient or 1.0) ** input.retry_count
            input.retry_count += 1
            input.held_by = held_by
            self.requeue(input, end, not_before=self.world.now() + min(delay_ms, policy.max_delay_ms or 60_000) / 1e3)

    def requeue(self, input: Input, end: str, *, not_before: float = 0.0) -> None:
        """Not by its fault: the same input again, with no retry used; unless it is cancelled."""
        if input.is_cancelled:
            self._finish(input, Result(status=TERMINATED, exception="Input was cancelled by user"), "cancelled")
            return
        self._end_attempt(input, end)
        input.not_before = not_before

    def terminate(self, input: Input, why: str) -> None:
        self._finish(input, Result(status=TERMINATED, exception=why), "cancelled")

    def _finish(self, input: Input, result: Result, end: str, item: api.FunctionPutOutputsItem | None = None) -> None:
        self._end_attempt(input, end)
        last = input.attempts[-1] if input.attempts else None
        input.ended_at = self.world.now()
        input.output = api.FunctionGetOutputsItem(
            result=result,
            idx=input.index,
            input_id=input.id,
            data_format=item.data_format if item else api.DATA_FORMAT_PICKLE,
            task_id=last.container_id if last else "",
            input_started_at=last.started_at if last else 0.0,
            output_created_at=input.ended_at,
            retry_count=input.retry_count,
        )

    def _end_attempt(self, input: Input, end: str) -> None:
        if input.container_id is not None:
            input.container_id = None
            input.attempts[-1].end, input.attempts[-1].ended_at = end, self.world.now()


def _call_info(call: Call) -> api.FunctionCallInfo:
    info = api.FunctionCallInfo(function_call_id=call.id, created_at=call.created_at, total_inputs=len(call.inputs))
    for input in call.inputs:
        latest = api.InputInfo(input_id=input.id, idx=input.index, finished_at=input.ended_at)
        if input.attempts:
            latest.task_id, latest.started_at = input.attempts[-1].container_id, input.attempts[-1].started_at
        if input.output is None:
            category = info.pending_inputs
        else:
            category = {
                Result.GENERIC_STATUS_SUCCESS: info.succeeded_inputs,
                Result.GENERIC_STATUS_TIMEOUT: info.timeout_inputs,
                TERMINATED: info.cancelled_inputs,
            }.get(input.output.result.status, info.failed_inputs)
        category.total += 1
        category.latest.append(latest)
    return info
