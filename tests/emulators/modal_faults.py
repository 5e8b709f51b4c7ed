"""What goes wrong with the emulated Modal's answers, on demand, and the record of what it was asked."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from google.protobuf import json_format
from grpclib.const import Status
from grpclib.exceptions import GRPCError

Kind = Literal["error", "lost", "delay", "hold_before", "hold_after"]
UNRECORDED = frozenset({"ContainerHeartbeat", "AppHeartbeat", "FunctionGetInputs", "MountPutFile"})
"""Counted, but with contents of no interest."""


@dataclass
class Fault:
    kind: Kind
    """error: refused before it has an effect; lost: it has, and the answer is lost; delay: `seconds` before it;
    hold_before, hold_after: kept waiting there until it is released."""
    rpc: str
    """The name of a method, or * for any that a client calls, heartbeats apart."""
    nth: int = 1
    """Counted from when the fault is set."""
    times: int = 1
    status: str = "UNAVAILABLE"
    message: str = "injected by the test"
    seconds: float = 0.0
    seen: int = 0
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)

    def is_due(self) -> bool:
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times


class Faults:
    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.counts: Counter[str] = Counter()
        """Of calls, by method."""
        self.by_clients: list[str] = []
        """Methods in the order that clients, not containers, called them."""
        self.requests: list[tuple[str, Any]] = []  # Any: the message of the method
        self.unknown: Counter[str] = Counter()
        """Calls of methods that are not served."""

    def note(self, rpc: str, request: Any, *, is_container: bool) -> list[Fault]:
        """Remember a call; the faults that are due for it."""
        self.counts[rpc] += 1
        if not is_container:
            self.by_clients.append(rpc)
        if rpc not in UNRECORDED:
            self.requests.append((rpc, request))
        is_any = not is_container and not rpc.endswith("Heartbeat")
        return [f for f in self.faults if (f.rpc == rpc or (f.rpc == "*" and is_any)) and f.is_due()]

    def recorded(self, rpc: str) -> list[dict[str, Any]]:  # Any: JSON
        return [
            json_format.MessageToDict(request, preserving_proto_field_name=True)
            for name, request in self.requests
            if name == rpc
        ]

    def heal(self) -> None:
        for fault in self.faults:
            fault.released.set()
        self.faults.clear()


async def before(faults: list[Fault]) -> None:
    for fault in faults:
        if fault.kind == "error":
            raise GRPCError(Status[fault.status], fault.message)
        if fault.kind == "delay":
            await asyncio.sleep(fault.seconds)
        if fault.kind == "hold_before":
            fault.reached.set()
            await fault.released.wait()


async def after(faults: list[Fault]) -> None:
    for fault in faults:
        if fault.kind == "lost":
            raise GRPCError(Status[fault.status], fault.message)
        if fault.kind == "hold_after":
            fault.reached.set()
            await fault.released.wait()
