"""How long a server may be silent before a request has failed, for the Hub's client in every process of ftl.

The client itself waits without end for some answers, and for others a minute, six times.
"""

import os

CONNECT_S = 10.0
MAX_WAIT_S = 30
"""A server that asks for more patience between two tries is not obeyed longer than this."""
_QUESTION_S = 30.0
_WORK_S = 120.0


def silence_s(*, is_question: bool, at_most: float = _WORK_S) -> float:
    """Seconds without a byte after which a request has failed: a question is answered soon, while whoever takes a large
    file or a commit may have work to do before the answer. `at_most` is of servers that are known to be quick."""
    longest = float(os.environ.get("FTL_STORE_SILENCE_S", _WORK_S))
    return _Slowness.seconds + min(longest, at_most, *((_QUESTION_S,) if is_question else ()))


class _Slowness:
    seconds = 0.0


def allow_for_slowness(seconds: float) -> None:
    """What this process sends may wait so long before it is sent, without any server being silent."""
    _Slowness.seconds = seconds
