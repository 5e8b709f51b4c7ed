"""A rank that trains nothing, for what supervisors do about ranks: it starts in a tenth of a second.

Two of them are in step over a connection of their own, as ranks are in a collective: they stop at the same step for
whatever reason either has, and end as a rank that lost its peer does when the connection ends.
"""

import json
import os
import socket
import sys
import time
from pathlib import Path

from ftl.contract import JobSpec
from ftl.errors import ConfigError, ExitCode, PreemptedError
from ftl_runtime.rank import _exit, leave, open_events
from ftl_runtime.stop import StopFlag
from ftl_runtime.verdict import Verdict, send, verdict_of

STEP_S = 0.02


def main(num_steps=100, fails=None, waits_s=0.0):
    """`fails` is the sentence of a wrong config, found before the ranks meet, `waits_s` later."""
    job = JobSpec.read_json(Path(sys.orig_argv[-1]).read_bytes())
    stop, emit = StopFlag(), open_events(job)
    stop.install()
    stop.leave_with(lambda reason: leave(job, emit, reason))
    try:
        time.sleep(waits_s)
        if fails:
            print("the last words of a rank", flush=True)
            raise ConfigError(fails)
        peer = _meet()
        stop.hold()
        _train(peer, num_steps, stop, emit)
        verdict = Verdict(ExitCode.DONE, "done")
    except OSError:
        verdict = Verdict(ExitCode.PREEMPTED, "lost", "lost the connection to another machine", is_bereft=True)
    except (ConfigError, PreemptedError) as error:
        verdict = verdict_of(error)
    if verdict.cause == "signal" and stop.reason is not None:
        verdict = Verdict(verdict.exit_code, stop.reason, verdict.message)
    send(verdict)
    _exit(verdict.exit_code)


def _meet():
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if os.environ["RANK"] == "0":
        with socket.create_server(place) as server:
            return server.accept()[0]
    while True:
        try:
            return socket.create_connection(place)
        except ConnectionRefusedError:
            time.sleep(STEP_S)


def _train(peer, num_steps, stop, emit):
    heard = peer.makefile("r")
    for step in range(1, num_steps + 1):
        told = stop.reason  # a signal that comes from here on counts at the next step
        peer.sendall(json.dumps(told).encode() + b"\n")
        line = heard.readline()
        if not line:
            raise ConnectionResetError
        reason = told or json.loads(line)
        if reason:
            stop.reason = reason
            emit("stopping", {"reason": reason, "step": step, "saves": True})
            emit("stopped", {"step": step, "checkpoint": None})
            raise PreemptedError(f"stopped at step {step}")
        emit("step", {"step": step})
        time.sleep(STEP_S)
