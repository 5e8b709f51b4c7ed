"""What the emulated Modal holds: apps, functions, calls, inputs, containers, and how its servers behave.

Everything runs on one asyncio loop, so nothing here is locked. Protobuf messages are kept as they came.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from grpclib.const import Status
from grpclib.exceptions import GRPCError
from modal_proto import api_pb2 as api

DAY_S = 86400.0
Thing = TypeVar("Thing")


@dataclass
class Behaviour:
    """What tests may set; seconds. The defaults of the real service stand in the comments where ours are shorter."""

    preemption_grace_s: float = 30.0
    """Between the SIGINT of a preemption and the SIGKILL."""
    background_commit_s: float | None = None  # real: every few seconds
    """Interval of the commits that nobody asked for; None: never, so that a missing commit loses data."""
    outputs_kept_s: float = 7 * DAY_S
    heartbeat_timeout_s: float | None = None  # real: minutes
    """A container that has not sent a heartbeat for so long is killed, and its input started elsewhere."""
    client_timeout_s: float | None = None
    """An app that is ephemeral, or not published yet, is stopped when its client was silent for so long."""
    crash_backoff_s: float = 0.1
    """Before a container is started after a crash; doubled for each in a row, to 30 s."""
    crashes_of_ephemeral: int = 3
    """So many crashed containers in a row fail the inputs of an app that is not deployed."""
    idle_s: float = 1.0  # real: scaledown_window, 60
    """A container that may serve several inputs stops after waiting so long for another."""
    poll_s: float = 10.0
    """A heartbeat or a wait for an input is answered with nothing after so long."""
    is_retry_held: bool = True
    """A retry waits until the container that failed has ended, and so has committed; it need not in reality."""
    is_idempotent: bool = True
    """A client's own second try of a call that had its effect gets the first answer."""
    capacity: int | None = None
    """So many containers run at once in the workspace; None: any number."""


@dataclass
class App:
    id: str
    name: str
    """The name it was deployed under; empty until it is published."""
    description: str
    environment: str
    state: "api.AppState.ValueType"
    created_at: float
    tags: dict[str, str]
    stopped_at: float = 0.0
    functions: dict[str, str] = field(default_factory=dict)
    """Tag -> id of the function, of the version that is deployed."""
    deployments: list[tuple[float, str]] = field(default_factory=list)
    """When each version was published, and its tag."""
    heartbeat_at: float = 0.0

    @property
    def is_stopped(self) -> bool:
        return self.state == api.APP_STATE_STOPPED

    @property
    def is_deployed(self) -> bool:
        return self.state == api.APP_STATE_DEPLOYED


@dataclass
class Function:
    id: str
    app_id: str
    name: str
    request: api.FunctionCreateRequest | None = None
    """None: precreated only."""
    data: api.FunctionData = field(default_factory=api.FunctionData)
    definition: api.Function = field(default_factory=api.Function)
    """With everything filled in; of a preference list of GPUs, the variant ranked first."""
    crashes: int = 0
    """Of containers, in a row."""
    not_before: float = 0.0
    """No container is started before; from the backoff."""
    is_queue_told: bool = False


@dataclass
class Attempt:
    """One delivery of an input to a container."""

    container_id: str
    retry_count: int
    started_at: float
    ended_at: float = 0.0
    end: str = ""
    """success, failure, timeout, cancelled, preempted, crashed, lost."""


@dataclass
class Input:
    id: str
    call_id: str
    index: int
    message: api.FunctionInput
    created_at: float
    retry_count: int = 0
    not_before: float = 0.0
    container_id: str | None = None
    """Where it runs."""
    attempts: list[Attempt] = field(default_factory=list)
    output: api.FunctionGetOutputsItem | None = None
    ended_at: float = 0.0
    is_cancelled: bool = False
    held_by: str | None = None
    """The container that must have ended before this is tried again."""


@dataclass
class Call:
    id: str
    function_id: str
    app_id: str
    kind: "api.FunctionCallType.ValueType"
    invocation: "api.FunctionCallInvocationType.ValueType"
    created_at: float
    inputs: list[Input] = field(default_factory=list)


class World:
    """All objects by id, a clock that tests may move, and one condition that is notified of every change."""

    def __init__(self, directory: Path, behaviour: Behaviour) -> None:
        self.directory = directory
        self.behaviour = behaviour
        self.server_url = ""
        self.http_url = ""
        self.tokens: dict[str, str] = {}
        self.environments: dict[str, str] = {"main": "en-1"}
        self.apps: dict[str, App] = {}
        self.functions: dict[str, Function] = {}
        self.calls: dict[str, Call] = {}
        self.inputs: dict[str, Input] = {}
        self.offset_s = 0.0
        self.version = 0
        """Counts changes."""
        self._numbers = itertools.count(1)
        self._changed = asyncio.Condition()
        self._background: set[asyncio.Task[Any]] = set()

    def new_id(self, prefix: str) -> str:
        return f"{prefix}-{next(self._numbers):022d}"

    def now(self) -> float:
        return time.time() + self.offset_s

    async def advance(self, seconds: float) -> None:
        self.offset_s += seconds
        await self.notify()

    async def notify(self) -> None:
        self.version += 1
        async with self._changed:
            self._changed.notify_all()

    async def wait_for(self, is_so: Callable[[], Any], timeout_s: float | None = None) -> bool:
        """Whether it came to be within that real time."""
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(is_so)
        except TimeoutError:
            return bool(is_so())
        return True

    async def sleep_until(self, moment: float) -> None:
        """Until the world's clock says so, which a test may move on."""
        while (left := moment - self.now()) > 0:
            await self.wait_for(lambda: self.now() >= moment, timeout_s=min(left, 3600.0))

    def start(self, work: Any) -> "asyncio.Task[Any]":  # Any: a coroutine of anything
        """Runs beside everything else; an exception in it ends the emulator loudly."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            loop = asyncio.get_running_loop()
            loop.call_exception_handler({"message": "the emulator failed", "exception": error, "task": task})

    def app(self, id: str) -> App:
        return _found(self.apps, id, "App")

    def function(self, id: str) -> Function:
        return _found(self.functions, id, "Function")

    def call(self, id: str) -> Call:
        return _found(self.calls, id, "Function call")

    def deployed(self, name: str, environment: str) -> App | None:
        return next(
            (a for a in self.apps.values() if a.name == name and a.environment == environment and a.is_deployed), None
        )

    def environment(self, name: str) -> str:
        """The name, or the default for an empty one."""
        name = name or "main"
        if name not in self.environments:
            raise GRPCError(Status.NOT_FOUND, f"Environment '{name}' not found")
        return name

    def inputs_of_app(self, app_id: str) -> Iterator[Input]:
        for call in self.calls.values():
            if call.app_id == app_id:
                yield from call.inputs


def _found(where: dict[str, Thing], id: str, kind: str) -> Thing:
    if id not in where:
        raise GRPCError(Status.NOT_FOUND, f"{kind} {id} not found")
    return where[id]
