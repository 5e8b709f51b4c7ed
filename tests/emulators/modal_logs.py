"""The log of the emulated Modal: everything containers print and the servers say, kept in order, for any reader."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from modal_proto import api_pb2 as api
from modal_world import World

STDOUT, STDERR, INFO = api.FILE_DESCRIPTOR_STDOUT, api.FILE_DESCRIPTOR_STDERR, api.FILE_DESCRIPTOR_INFO


@dataclass(frozen=True)
class Line:
    number: int
    at: float
    source: "api.FileDescriptor.ValueType"
    text: str
    app_id: str
    function_id: str = ""
    call_id: str = ""
    input_id: str = ""
    container_id: str = ""
    state: "api.TaskState.ValueType" = api.TASK_STATE_UNSPECIFIED

    def batch(self) -> api.TaskLogsBatch:
        item = api.TaskLogs(
            data=self.text,
            file_descriptor=self.source,
            timestamp=self.at,
            timestamp_ns=int(self.at * 1e9),
            function_call_id=self.call_id,
            input_id=self.input_id,
            container_id=self.container_id,
            task_state=self.state,
        )
        return api.TaskLogsBatch(
            items=[item],
            entry_id=f"{self.number}-0",
            task_id=self.container_id,
            function_id=self.function_id,
            root_function_id=self.function_id,
            input_id=self.input_id,
        )


class Logs:
    def __init__(self, world: World) -> None:
        self.world = world
        self.lines: list[Line] = []
        self.rpcs: dict[str, Any] = {  # Any: an async function or generator over two messages of the same method
            "AppGetLogs": self.stream,
            "AppFetchLogs": self.fetch,
            "AppCountLogs": self.count,
        }

    async def add(self, text: str, source: "api.FileDescriptor.ValueType", app_id: str, **where: Any) -> None:
        """`where`: other fields of Line."""
        self.lines.append(Line(len(self.lines) + 1, self.world.now(), source, text, app_id, **where))
        await self.world.notify()

    async def stream(self, request: api.AppGetLogsRequest, _: object) -> AsyncIterator[api.TaskLogsBatch]:
        """Waits for more until the request's timeout is over, or the app is."""
        app = self.world.app(request.app_id)
        seen = int(request.last_entry_id.partition("-")[0] or 0)
        deadline = self.world.now() + (request.timeout or 55.0)
        while True:
            is_last, end = app.is_stopped, len(self.lines)
            for line in self._matching(request, self.lines[seen:end], request.file_descriptor):
                yield line.batch()
            seen = end
            if is_last:
                yield api.TaskLogsBatch(app_done=True, entry_id=f"{seen}-0")
                return
            left = deadline - self.world.now()
            if left <= 0:
                return
            await self.world.wait_for(lambda: len(self.lines) > seen or app.is_stopped, timeout_s=left)  # noqa: B023

    async def fetch(self, request: api.AppFetchLogsRequest, _: object) -> api.AppFetchLogsResponse:
        """The last lines of the time asked for, the oldest first."""
        self.world.app(request.app_id)
        found = list(self._within(request))[-(request.limit or 1000) :]
        return api.AppFetchLogsResponse(batches=[line.batch() for line in found])

    async def count(self, request: api.AppCountLogsRequest, _: object) -> api.AppCountLogsResponse:
        self.world.app(request.app_id)
        seconds = request.bucket_secs or 60
        buckets: dict[int, api.AppCountLogsResponse.LogBucket] = {}
        for line in self._within(request):
            start = int(line.at // seconds * seconds)
            bucket = buckets.setdefault(start, api.AppCountLogsResponse.LogBucket())
            bucket.bucket_start_at.FromSeconds(start)
            bucket.stdout_logs += line.source == STDOUT
            bucket.stderr_logs += line.source == STDERR
            bucket.system_logs += line.source == INFO
        return api.AppCountLogsResponse(app_id=request.app_id, buckets=[buckets[start] for start in sorted(buckets)])

    def _within(self, request: Any) -> Iterator[Line]:  # Any: one of two messages with the same fields
        since = request.since.ToNanoseconds() / 1e9 if request.HasField("since") else 0.0
        until = request.until.ToNanoseconds() / 1e9 if request.HasField("until") else float("inf")
        return (
            line
            for line in self._matching(request, self.lines, request.source)
            if since <= line.at <= until and line.text
        )

    def _matching(
        self, request: Any, lines: list[Line], source: int
    ) -> Iterator[Line]:  # Any: any of the three messages
        for line in lines:
            if (
                line.app_id == request.app_id
                and (not source or line.source == source)
                and request.function_id in ("", line.function_id)
                and request.function_call_id in ("", line.call_id)
                and request.task_id in ("", line.container_id)
                and request.search_text in line.text
            ):
                yield line
