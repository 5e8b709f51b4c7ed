"""How a run on Modal stands: what its newest call answers, and what its containers have left on the volume."""

import time
from typing import TYPE_CHECKING

from ftl.backends import modal_volume as volumes
from ftl.backends.modal_plan import WITHOUT_GPU, run_root
from ftl.contract import EXIT_FILE, ExitRecord, JobHandle, JobState
from ftl.cost import duration
from ftl.errors import ExitCode

if TYPE_CHECKING:
    import modal

VERDICT_FILE, CHAIN_FILE = "verdict.json", "chain.json"
_TOLD_S = (60, 120, 300, 600, 1200, 1800, 3600)
"""How long a run has waited is told so often, then by the hour."""

_next: dict[str, str] = {}
"""Call -> the one that goes on for it. It never changes, so it is asked for once."""
_begun: set[str] = set()
"""Calls whose container has begun; so is this."""


def volume_of(handle: JobHandle) -> "modal.Volume":
    return volumes.state_volume(str(handle.ref["volume"]), environment_of(handle))


def environment_of(handle: JobHandle) -> str | None:
    return str(handle.ref["environment"]) or None


def state_of(handle: JobHandle, call: str) -> JobState:
    """How a call stands, or whichever call goes on for it."""
    import modal

    while call in _next:
        call = _next[call]
    try:
        told = modal.FunctionCall.from_id(call).get(timeout=0)
    except modal.exception.TimeoutError as error:  # it ran out of retries, or was over a week ago
        return _without_answer(handle, call, str(error))
    except TimeoutError:
        return _running(handle, call)
    except (modal.exception.ConnectionError, modal.exception.ServiceError, modal.exception.AuthError):
        raise
    except Exception as error:  # whatever the function raised, and what the server made of a call that was cancelled
        return _without_answer(handle, call, str(error))
    if told["status"] == "next":
        _next[call] = str(told["call"])
        return state_of(handle, _next[call])
    return JobState(phase="ended", exit_code=told["exit_code"], cause=told.get("cause"), message=told.get("message"))


def _running(handle: JobHandle, call: str) -> JobState:
    """A call that has no result yet: it is queued until its container has put its mark on the volume."""
    if call in _begun:
        return JobState(phase="running")
    chain = volumes.record(volume_of(handle), f"{run_root(handle.run_id)}/{CHAIN_FILE}")
    if chain.get("submission") != handle.attempt:
        chain = {}
    if "started_at" in chain:  # by this call, or by one that was made twice, which this one waits for
        _begun.add(call)
        return JobState(phase="running")
    stage = chain.get("stage", handle.ref.get("first"))
    machine = str(handle.ref.get("machine", "")) if stage == "train" else WITHOUT_GPU
    what = machine if machine == WITHOUT_GPU else f"a machine with {machine}" if machine else "a container"
    since = float(chain.get("called_at", handle.ref.get("called_at", time.time())))
    message = f"Modal has not started {what} yet{_waited(time.time() - since)}"
    return JobState(phase="queued", message=message)


def _waited(seconds: float) -> str:
    """`, after 5 min`: rounded down so that a message stays the same for a while."""
    told = [one for one in _TOLD_S if one <= seconds]
    if not told:
        return ""
    return f", after {duration(told[-1] if seconds < 2 * _TOLD_S[-1] else int(seconds // 3600) * 3600)}"


def _without_answer(handle: JobHandle, call: str, reason: str) -> JobState:
    """A call without a result: another may go on for it, else the volume says how the run ended."""
    chain = volumes.record(volume_of(handle), f"{run_root(handle.run_id)}/{CHAIN_FILE}")
    newest = chain.get("call")
    if chain.get("submission") == handle.attempt and newest and newest != call:
        return state_of(handle, str(newest))
    told = _verdict(handle)
    if told is not None:
        return told
    lines = reason.strip().splitlines()
    message = f"Modal ended it: {lines[-1]}" if lines else "Modal ended it"
    return JobState(phase="ended", exit_code=ExitCode.PREEMPTED, cause="lost", message=message)


def _verdict(handle: JobHandle) -> JobState | None:
    """What the volume says about the end of a submission."""
    root = run_root(handle.run_id)
    verdict = volumes.record(volume_of(handle), f"{root}/{VERDICT_FILE}")
    if verdict.get("submission") == handle.attempt:
        code, cause = verdict["exit_code"], verdict.get("cause")
        return JobState(phase="ended", exit_code=code, cause=cause, message=verdict.get("message"))
    found = volumes.record(volume_of(handle), f"{root}/run/{EXIT_FILE}")
    if found and (record := ExitRecord.read(found)).is_of(handle.attempt):
        return JobState(phase="ended", exit_code=record.exit_code, cause=record.cause, message=record.message)
    return None
