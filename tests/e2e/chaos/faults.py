"""Strikes a process of an attempt, or all of them, at a chosen point; loaded in each of them by nursery.py.

FTL_CHAOS is a Plan as JSON. What was hit, and in the middle of what, is written to the plan's file `hits` before the
blow. A point is counted in operations on files (those Python tells its audit hooks: open, mkdir, rename, link, remove),
so it may lie anywhere in a save or an upload.
"""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

Moment = Literal["start", "step", "save", "upload", "none"]
Victim = Literal["trainer", "trainer-0", "trainer-1", "supervisor", "sync", "machine"]
"""`trainer` is all ranks, `trainer-1` that rank alone, `machine` every process of the attempt."""

_TOUCHES = ("open", "os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir", "shutil.rmtree", "socket.connect")
_WRITER = "checkpoint"
"""The thread that writes a checkpoint while training goes on."""
_BEHIND = "behind "
"""So begins what is told of a blow that falls while it does."""


@dataclass(frozen=True)
class Plan:
    hits: str
    moment: Moment = "none"
    at: int = 1
    """Steps, saves or uploads of this attempt, the one to strike in included."""
    num_touches: int = 0
    """Operations on files into the save or the upload; at its end where there are fewer."""
    delay_s: float = 0.0
    """After the beginning of the step or of the attempt, or after that operation of a save."""
    striker: int = 0
    """The rank in which steps, saves and operations on files are counted."""
    victim: Victim = "machine"
    signal: int = signal.SIGKILL
    step_s: float = 0.0
    """Every step takes that much longer, so that there is time to send."""


def arm(role: str) -> None:
    """Prepare the blow if this process has the point in it."""
    if "FTL_CHAOS_CLOCK" in os.environ:
        _set_clock(**json.loads(os.environ["FTL_CHAOS_CLOCK"]))
    if "FTL_CHAOS" not in os.environ:
        return
    plan = Plan(**json.loads(os.environ["FTL_CHAOS"]))
    blow = _Blow(plan)
    if role == f"trainer-{plan.striker}":
        if plan.moment == "start":
            threading.Thread(target=lambda: (time.sleep(plan.delay_s), blow.strike("start")), daemon=True).start()
        _follow_training(plan, blow)
    elif role == "sync" and plan.moment == "upload":
        _follow_uploads(plan, blow)


def _set_clock(ahead_s: float, jump_s: float, at: int) -> None:
    """Have Python's wall clock be ahead, and jump once step `at` was told; the processes of an attempt share none."""
    from ftl_runtime import events

    real, emit = time.time, events.EventLog.emit

    def emit_and_jump(log: Any, event: str, data: dict[str, Any]) -> None:
        nonlocal ahead_s
        emit(log, event, data)
        if event == "step" and data["step"] == at:
            ahead_s += jump_s

    events.EventLog.emit = emit_and_jump  # type: ignore[method-assign]
    time.time = lambda: real() + ahead_s


class _Blow:
    """What the plan has happen, once in an attempt, however often its processes are started."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def strike(self, moment: str, **facts: Any) -> None:  # Any: JSON
        plan = self._plan
        try:
            os.close(os.open(f"{plan.hits}.once", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        victims = _victims(plan.victim)
        told = {"moment": moment, "victim": plan.victim, "signal": plan.signal, "pids": victims, **facts}
        with Path(plan.hits).open("a") as file:
            file.write(json.dumps(told) + "\n")
        if plan.signal == signal.SIGKILL:
            others = [pid for pid in victims if pid != os.getpid()]
            for number in (signal.SIGSTOP, signal.SIGKILL):  # together, as a machine that goes dark
                for pid in others:
                    _send(pid, number)
            if os.getpid() in victims:
                os.kill(os.getpid(), signal.SIGKILL)
        else:
            for pid in victims:
                _send(pid, plan.signal)


def _victims(victim: Victim) -> list[int]:
    """The living processes to be struck. A machine's supervisor comes last: its trainers die of its death."""
    with Path(os.environ["FTL_CHAOS_PIDS"]).open() as file:
        born = [line.split() for line in file]
    chosen = [int(pid) for role, pid in reversed(born) if victim in (role, role.partition("-")[0], "machine")]
    return [pid for pid in chosen if Path(f"/proc/{pid}").exists()]


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _follow_training(plan: Plan, blow: _Blow) -> None:
    from ftl_runtime import events

    num_steps = num_saves = step = 0
    phase = ""
    saving: int | None = None  # the step whose save is under way, maybe while the next steps are taken

    def follow(emit: Callable[[], None], event: str, data: dict[str, Any]) -> None:
        nonlocal num_steps, num_saves, phase, saving, step
        if event == "phase" and plan.striker:
            saving = None  # another rank than the first has no part in what follows
        if event in ("step", "phase") and saving is None:
            save.end()
        emit()
        if event == "checkpoint" and data["state"] == "verified" and data["step"] == saving:
            saving = None
        if event == "step":
            num_steps, step = num_steps + 1, data["step"]
            if plan.moment == "step" and num_steps == plan.at:
                threading.Thread(target=strike_later, daemon=True).start()
            time.sleep(plan.step_s)
        elif event == "phase":
            phase = data["name"]
            if phase == "saving":
                num_saves, saving = num_saves + 1, step
                if plan.moment == "save" and num_saves == plan.at:
                    save.begin()

    def strike_later() -> None:
        time.sleep(plan.delay_s)
        is_behind = any(thread.name == _WRITER for thread in threading.enumerate())
        moment = "save" if saving is not None else "step" if phase == "training" else phase
        blow.strike(moment, step=step, touch=f"{_BEHIND if is_behind else ''}between")

    def strike_save(touch: str) -> None:
        if plan.delay_s:
            threading.Thread(target=strike_later, daemon=True).start()
        else:
            blow.strike("save", step=step, touch=touch)

    save = _Count(plan.num_touches, strike_save)
    emit = events.EventLog.emit
    events.EventLog.emit = lambda log, *told: follow(partial(emit, log, *told), *told)  # type: ignore[assignment]
    events.no_events = lambda *told: follow(lambda: None, *told)  # what the other ranks have


def _follow_uploads(plan: Plan, blow: _Blow) -> None:
    from ftl_runtime.checkpoint.bucket import BucketStore
    from ftl_runtime.checkpoint.hub import HubStore

    num_uploads = 0

    def watched(put: Callable[..., None]) -> Callable[..., None]:
        def put_and_strike(store: Any, checkpoint: Any, *rest: Any) -> None:
            nonlocal num_uploads
            num_uploads += 1
            facts = {"step": checkpoint.step, "store": store.label}
            count = _Count(plan.num_touches, lambda touch: blow.strike("upload", touch=touch, **facts))
            if num_uploads == plan.at:
                count.begin()
            try:
                put(store, checkpoint, *rest)
            finally:
                count.end()

        return put_and_strike

    for kind in (BucketStore, HubStore):
        kind.put = watched(kind.put)  # type: ignore[method-assign]


class _Count:
    """Calls `then` at the n-th operation on files of this thread or the one that writes checkpoints since `begin`,
    or at `end` where there are fewer."""

    def __init__(self, num_touches: int, then: Callable[[str], None]) -> None:
        self._left, self._then = num_touches, then
        self._thread: int | None = None
        sys.addaudithook(self._hear)

    def begin(self) -> None:
        self._thread = threading.get_ident()

    def end(self) -> None:
        if self._thread is not None:
            self._thread = None
            self._then("at its end")

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._thread is None or event not in _TOUCHES:
            return
        is_behind = threading.current_thread().name == _WRITER
        if not is_behind and threading.get_ident() != self._thread:
            return
        self._left -= 1
        if self._left <= 0:
            self._thread = None
            self._then(f"{_BEHIND if is_behind else ''}{event} {Path(str(arguments[0])).name}")
