"""How an attempt on several machines has ended: as the trainers of this one say, or as those of the one that failed.

Trainers that have lost another one end with an error of the network, whatever became of that one. So it is asked for.
"""

from ftl.errors import ExitCode
from ftl_runtime.link import MAX_WORDS, Link
from ftl_runtime.runlog import RunLog
from ftl_runtime.verdict import Verdict
from ftl_runtime.watch import STRAGGLER_S

_WAIT_S = STRAGGLER_S + 5.0
"""A machine knows how its trainers have ended when the last of them has, or was killed as a straggler."""


def agreed(own: Verdict, link: Link, log: RunLog, *, is_bereft: bool, newest: int | None) -> Verdict:
    """The verdict of this machine, which the others are told; `newest` is the step of the newest checkpoint.

    `is_bereft`: its trainers may have ended only because others had. What those wrote last goes to the log then.
    """
    if not is_bereft:
        has_failed = own.exit_code not in (ExitCode.DONE, ExitCode.PREEMPTED)
        link.tell_ended(own, log.end(MAX_WORDS) if has_failed else "")
        return own
    link.tell_ended(_lost("it lost the connection to another machine", None))
    link.wait_until(lambda: _culprit(link) is not None or bool(link.gone), _WAIT_S)
    found = _culprit(link)
    if found is not None:
        node, verdict = found
        told = f"machine {node}: {verdict.message or verdict.cause}"
        if link.words.get(node):
            log.write(f"The log of machine {node} ends with:\n{link.words[node].rstrip()}\n{told}")
        if verdict.cause == "killed":
            return _lost(told, newest)
        if verdict.exit_code == ExitCode.PREEMPTED:  # it knows no checkpoints
            return Verdict(ExitCode.PREEMPTED, verdict.cause, told.partition(";")[0] + _onwards(newest))
        return Verdict(verdict.exit_code, verdict.cause, told)
    if link.gone:
        return _lost(f"machine {link.gone[0]} is gone", newest)
    done = link.ended.get(0)
    return done if done is not None and done.exit_code == ExitCode.DONE else own


def _culprit(link: Link) -> tuple[int, Verdict] | None:
    """The first machine that has failed of itself."""
    failed = ((node, verdict) for node, verdict in list(link.ended.items()) if verdict.exit_code)
    return next(((node, verdict) for node, verdict in failed if verdict.cause != "lost"), None)


def _lost(message: str, newest: int | None) -> Verdict:
    return Verdict(ExitCode.PREEMPTED, "lost", message + _onwards(newest))


def _onwards(newest: int | None) -> str:
    return "" if newest is None else f"; it goes on from step {newest}"
