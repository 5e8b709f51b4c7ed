"""The supervisors of a job's machines, in touch from before their trainers start until after they have ended.

The first machine listens at the address where all meet; the others connect. Both sides write JSON lines:

    {"hello": {"run": ..., "node": 1, "num_nodes": 2, "ranks": 8}}     of a machine that has come
    {"welcome": {"port": 41234, "is_done": false}}                     all are there: where trainers meet
    {"refused": "..."}                                                 it is not one of them
    {"stop": {"reason": ..., "why": ..., "left_s": 25.0}, "node": 1}   a machine was asked to stop
    {"ended": {"exit_code": 0, ...}, "log": "...", "node": 1}          how its trainers have ended, and their last words
    {"gone": true, "node": 1}                                          it left without a word
    {}                                                                 it lives

What concerns all the first machine passes on. Imports nothing heavy: trainers may be busy or dead, this one answers.
"""

import contextlib
import errno
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, get_args

from ftl.contract import Cause
from ftl.errors import BackendError
from ftl_runtime.rendezvous import Rendezvous, free_port
from ftl_runtime.stop import Reason
from ftl_runtime.verdict import Verdict

JOIN_S = 1800.0
"""How long machines wait for each other: an image may come to one of them half an hour later."""
BEAT_S = 5.0
SILENCE_S = 90.0
"""A machine that says nothing for so long is gone: the network says nothing about one that lost its power."""
_CLOSE_S = 3.0
_RETRY_S = 0.5
MAX_WORDS = 8000
_MAX_LINE = 1 << 16

Message = dict[str, Any]  # Any: JSON


@dataclass(frozen=True)
class Asked:
    """What another machine was asked."""

    reason: Reason
    why: str
    until: float
    """By time.monotonic() of this machine."""


@dataclass(frozen=True)
class Meeting:
    port: int
    """Where the trainers meet, at the address of the first machine."""
    is_done: bool
    """The run has its result already."""
    address_here: str
    """Of this machine, as the others reach it."""


class Link:
    """Of one machine. Its fields tell how the others stand."""

    def __init__(self, place: Rendezvous, run_id: str, num_ranks: int) -> None:
        """The first machine listens from here on. Raises BackendError where it cannot."""
        self.asked: Asked | None = None
        """The first request to stop that was made elsewhere."""
        self.ended: dict[int, Verdict] = {}
        """Machines whose trainers have ended, in that order."""
        self.words: dict[int, str] = {}
        """The end of the log of those that say so."""
        self.gone: list[int] = []
        self._place, self._run_id, self._num_ranks = place, run_id, num_ranks
        self._wires: dict[int, _Wire] = {}
        self._changed = threading.Condition()
        self._welcome: Message | None = None
        self._refused: str | None = None
        self._is_closed = False
        self._listener = _listen(place) if place.node == 0 else None
        if self._listener is not None:
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()
        threading.Thread(target=self._beat, daemon=True).start()

    def meet(self, *, is_done: bool, must_end: Callable[[], bool], patience_s: float = JOIN_S) -> Meeting | None:
        """Return when all machines are there; None where `must_end` says so before, or another machine. Raises
        BackendError where they do not come, or this is not one of them. `is_done` is what the first one tells."""
        give_up = time.monotonic() + patience_s
        while self._welcome is None:
            if self._refused is not None:
                raise BackendError(self._refused)
            if self._place.node and not self._wires:
                self._connect()
            if self._place.node == 0 and len(self._wires) + 1 == self._place.num_nodes:
                self._welcome = {"port": free_port(), "is_done": is_done}
                self._send({"welcome": self._welcome})
            if must_end() or self.asked or self.has_failed():
                return None
            if time.monotonic() > give_up:
                raise BackendError(self._missing(patience_s))
            with self._changed:
                self._changed.wait(_RETRY_S if not self._wires else 0.05)
        address = next(iter(self._wires.values())).address_here
        return Meeting(int(self._welcome["port"]), bool(self._welcome["is_done"]), address)

    def tell_stop(self, reason: Reason, why: str | None, left_s: float) -> None:
        self._send({"stop": {"reason": reason, "why": why, "left_s": left_s}, "node": self._place.node})

    def tell_ended(self, verdict: Verdict, words: str = "") -> None:
        self._send({"ended": asdict(verdict), "log": words[-MAX_WORDS:], "node": self._place.node})

    def has_failed(self) -> bool:
        """Whether trainers of another machine are lost to those of this one."""
        return bool(self.gone) or any(verdict.exit_code for verdict in list(self.ended.values()))

    def wait_until(self, is_known: Callable[[], bool], timeout_s: float) -> None:
        """Until that is so, or it is known of all machines how they ended."""
        num_others = self._place.num_nodes - 1
        with self._changed:
            self._changed.wait_for(lambda: is_known() or len(self.ended) == num_others, timeout=timeout_s)

    def close(self) -> None:
        """What was told arrives."""
        self._is_closed = True
        for wire in list(self._wires.values()):
            wire.close()
        if self._listener is not None:
            self._listener.close()

    def _missing(self, patience_s: float) -> str:
        where = f"{self._place.address}:{self._place.port}"
        if self._place.node:
            return f"machine 0 does not answer at {where}: machines must reach each other at all ports"
        there = {0, *self._wires}
        missing = ", ".join(str(node) for node in range(self._place.num_nodes) if node not in there)
        return f"machines {missing} have not come to {where} in {patience_s / 60:.0f} min: all must reach it"

    def _connect(self) -> None:
        try:
            connection = socket.create_connection((self._place.address, self._place.port or 0), timeout=10)
        except OSError:
            return  # it is not there yet
        wire = _Wire(connection)
        who = {"run": self._run_id, "node": self._place.node, "num_nodes": self._place.num_nodes}
        wire.send({"hello": who | {"ranks": self._num_ranks}})
        self._wires[0] = wire
        threading.Thread(target=self._read, args=(0, wire, wire.messages()), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                wire = _Wire(listener.accept()[0])
                threading.Thread(target=self._greet, args=(wire,), daemon=True).start()

    def _greet(self, wire: "_Wire") -> None:
        messages = wire.messages()
        told = next(messages, {}).get("hello")
        if not isinstance(told, dict):
            wire.close()
            return
        node = told.get("node")
        with self._changed:
            refused = self._reason_against(told)
            if refused is None and isinstance(node, int):
                self._wires[node] = wire
                self._changed.notify_all()
        if refused is not None or not isinstance(node, int):
            wire.send({"refused": refused})
            wire.close()
            return
        self._read(node, wire, messages)

    def _reason_against(self, told: Message) -> str | None:
        """Why the machine that says so is none of ours."""
        node, place = told.get("node"), self._place
        where = f"at {place.address}:{place.port}"
        if told.get("run") != self._run_id:
            return f"another run meets {where}: {self._run_id}; give each its own MASTER_PORT"
        if told.get("num_nodes") != place.num_nodes or not isinstance(node, int) or not 0 < node < place.num_nodes:
            other = f"{node} of {told.get('num_nodes')}"
            return f"{place.num_nodes} machines meet {where}, counted from 0, and this one says it is {other}"
        if told.get("ranks") != self._num_ranks:
            counts = f"machine {node} starts {told.get('ranks')} trainers and machine 0 {self._num_ranks}"
            return f"{counts}: all must have as many GPUs"
        if node in self._wires:
            return f"machine {node} is there already, {where}: each needs its own NODE_RANK"
        return None

    def _read(self, other: int, wire: "_Wire", messages: "Iterator[Message]") -> None:
        """To the end of what the machine says; on others than the first that is all they hear."""
        for message in messages:
            if message:
                self._take(message, other)
        with self._changed:
            if self._is_closed or other in self.ended:
                return
            if self._refused is None:
                self.gone.append(other)
            self._changed.notify_all()
        self._pass_on({"gone": True, "node": other}, other)

    def _take(self, message: Message, other: int) -> None:
        node = other if self._place.node == 0 else message.get("node", 0)
        with self._changed:
            if "refused" in message:
                self._refused = str(message["refused"])
            if isinstance(message.get("welcome"), dict):
                self._welcome = message["welcome"]
            if "stop" in message and self.asked is None:
                self.asked = _asked(message["stop"], node)
            if "ended" in message and (verdict := _verdict(message["ended"])):
                self.words.setdefault(node, str(message.get("log") or ""))
                self.ended.setdefault(node, verdict)
            if "gone" in message:
                self.gone.append(node)
            self._changed.notify_all()
        if "stop" in message or "ended" in message:
            self._pass_on({**message, "node": node}, other)

    def _pass_on(self, message: Message, source: int) -> None:
        if self._place.node == 0:
            self._send(message, but=source)

    def _send(self, message: Message, but: int | None = None) -> None:
        for node, wire in list(self._wires.items()):
            if node != but:
                wire.send(message)

    def _beat(self) -> None:
        while not self._is_closed:
            time.sleep(BEAT_S)
            self._send({})


class _Wire:
    """JSON lines over a connection; to be written from any thread. Whoever reads sees its end."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(SILENCE_S)
        self._connection = connection
        self._lock = threading.Lock()
        self._has_ended = threading.Event()
        self.address_here = str(connection.getsockname()[0])

    def send(self, message: Message) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(message).encode() + b"\n")

    def messages(self) -> "Iterator[Message]":
        try:
            with contextlib.suppress(OSError), self._connection.makefile("rb") as file:
                while (line := file.readline(_MAX_LINE)).endswith(b"\n"):
                    with contextlib.suppress(ValueError):
                        message = json.loads(line)
                        if isinstance(message, dict):
                            yield message
        finally:
            self._has_ended.set()
            with contextlib.suppress(OSError):
                self._connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Closed with something unread, a connection would take back what was written last."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_WR)
        self._has_ended.wait(_CLOSE_S)
        self._connection.close()


def _listen(place: Rendezvous) -> socket.socket:
    """At that address alone where it is one of this machine, else at all: it may be one of a router in front."""
    port = place.port or 0
    try:
        family, _, _, _, address = socket.getaddrinfo(place.address, port, type=socket.SOCK_STREAM)[0]
        try:
            return socket.create_server(address[:2], family=family, backlog=64)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            return socket.create_server(("", port), backlog=64)
    except OSError as error:
        raise BackendError(
            f"machines cannot meet at {place.address}:{port}: {error.strerror or error}; give the address of machine 0 "
            "as MASTER_ADDR and a free port as MASTER_PORT"
        ) from error


def _asked(told: Any, node: int) -> Asked | None:  # Any: JSON of another machine
    try:
        reason, why, left_s = told["reason"], told["why"], float(told["left_s"])
    except (ValueError, KeyError, TypeError):
        return None
    if reason not in get_args(Reason):
        return None
    return Asked(reason, str(why or f"machine {node} was asked to stop"), time.monotonic() + left_s)


def _verdict(told: Any) -> Verdict | None:  # Any: JSON of another machine
    try:
        verdict = Verdict(int(told["exit_code"]), told["cause"], told["message"])
    except (ValueError, KeyError, TypeError):
        return None
    return verdict if verdict.cause in get_args(Cause) else None
