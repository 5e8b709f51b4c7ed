"""What a trainer says about its own end, and how the supervisor reads it.

A verdict travels as one JSON line through a pipe that every rank inherits; the first one written counts.
"""

import json
import os
import traceback
from dataclasses import asdict, dataclass
from typing import get_args

from ftl.contract import Cause
from ftl.errors import ExitCode, FtlError
from ftl.redact import redacted
from ftl.sources.retry import causes
from ftl_runtime.memory import BatchTooLargeError, is_out_of_memory, memory_of
from ftl_runtime.rendezvous import UnmetError

VERDICT_FD = "FTL_VERDICT_FD"
"""The variable with the number of the pipe's descriptor."""

_CAUSES: dict[int, Cause] = {
    ExitCode.DONE: "done",
    ExitCode.CONFIG: "config",
    ExitCode.ENVIRONMENT: "environment",
    ExitCode.TRAINING: "crash",
    ExitCode.DIVERGED: "diverged",
    ExitCode.STORAGE: "storage",
    ExitCode.PREEMPTED: "signal",
    ExitCode.UNDELIVERED: "undelivered",
}

_MEMORY_ADVICE = (
    "lower micro_batch_size or sequence_len (raise gradient_accumulation_steps to keep the batch), "
    "or set gradient_checkpointing: true"
)


_NETWORK_WORDS = (
    *("gloo/transport/", "Connection closed by peer", "Connection reset by peer", "Broken pipe"),
    *("remote process exited", "ncclRemoteError", "ncclSystemError", "NCCL communicator was aborted"),
)
"""What torch's DistBackendError and DistNetworkError and gloo's RuntimeError say of it."""
_TIMED_OUT = "Timed out waiting"
"""Of ranks that live and wait for each other: they would again."""


@dataclass(frozen=True)
class Verdict:
    exit_code: int
    cause: Cause
    message: str | None = None
    may_shrink: bool = False
    """Out of memory where smaller micro-batches help."""
    is_bereft: bool = False
    """It may only be what trainers see when those of another machine have ended."""


def verdict_of(error: BaseException) -> Verdict:
    """How an exception that ended the training is told to the user; a traceback goes with the ones that are ours."""
    if isinstance(error, BatchTooLargeError):
        return Verdict(ExitCode.TRAINING, "out-of-memory", f"{error}; {_MEMORY_ADVICE}", may_shrink=True)
    if isinstance(error, UnmetError):
        return Verdict(ExitCode.ENVIRONMENT, "environment", str(error), is_bereft=True)
    if isinstance(error, FtlError):
        code = error.exit_code if error.exit_code in _CAUSES else ExitCode.TRAINING
        return Verdict(int(code), _CAUSES[code], str(error))
    if is_out_of_memory(error):
        return Verdict(ExitCode.TRAINING, "out-of-memory", f"out of {memory_of(error)} memory; {_MEMORY_ADVICE}")
    if has_other_machines() and is_lost_peer(error):
        return Verdict(ExitCode.PREEMPTED, "lost", "lost the connection to another machine", is_bereft=True)
    sentence = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
    return Verdict(ExitCode.TRAINING, "crash", f"the training crashed: {sentence}; the traceback is in log.txt")


def has_other_machines() -> bool:
    """Whether this is a rank whose peers are not all on this machine."""
    return os.environ.get("WORLD_SIZE", "1") != os.environ.get("LOCAL_WORLD_SIZE", "1")


def is_lost_peer(error: BaseException) -> bool:
    """Whether it is the network that has failed between ranks, or a rank at its other end; an error that one raises
    over it counts."""
    told = [str(cause) for cause in causes(error) if isinstance(cause, RuntimeError)]
    return any(words in text and _TIMED_OUT not in text for text in told for words in _NETWORK_WORDS)


def send(verdict: Verdict) -> None:
    """Tell the supervisor. Does nothing when nobody started this process to be told; never raises."""
    fd = os.environ.get(VERDICT_FD)
    if fd is None:
        return
    message = (
        redacted(verdict.message)[:2000] if verdict.message else None
    )  # below PIPE_BUF, so lines of two ranks never mix
    line = json.dumps({**asdict(verdict), "message": message}).encode()[:4000] + b"\n"
    try:
        os.write(int(fd), line)
    except OSError:
        return  # the supervisor is gone; nobody is left to read


def receive(data: bytes) -> Verdict | None:
    """The first whole verdict in what came through the pipe, or None."""
    for line in data.splitlines():
        try:
            record = json.loads(line)
            is_so = {name: record.get(name) is True for name in ("may_shrink", "is_bereft")}
            verdict = Verdict(int(record["exit_code"]), record["cause"], record["message"], **is_so)
        except (ValueError, KeyError, TypeError):
            continue  # a writer killed midway leaves half a line
        if verdict.cause in get_args(Cause):
            return verdict
    return None
