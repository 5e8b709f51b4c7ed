"""Requests again after failures that may pass, within a budget."""

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from ftl.errors import BackendError

DELAYS_S = (5.0, 10.0)
"""Seconds before the second and the third try."""
MAX_DELAY_S = 30.0
"""A server that asks for more patience is not waited for longer than this."""

_Result = TypeVar("_Result")


class UnreachableError(BackendError):
    """The network or the other side did not answer; the same command may work later."""


class PassingError(Exception):
    """A failure that may pass, in words; `after_s` is how long the server asks to wait."""

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


def with_retries(call: Callable[[], _Result], delays_s: tuple[float, ...] = DELAYS_S) -> _Result:
    """What `call` gives, tried again after each of the delays when it raises PassingError.

    Raises the last one, with the number of tries and the seconds waited in its words.
    """
    waited = 0.0
    for delay in (*delays_s, None):
        try:
            return call()
        except PassingError as e:
            if delay is None:
                raise PassingError(f"{e}, {len(delays_s) + 1} times in {waited:.0f} s" if delays_s else str(e)) from e
            pause = min(max(delay, e.after_s or 0.0), MAX_DELAY_S)
        time.sleep(pause)
        waited += pause
    raise AssertionError("the last try returns or raises")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it: libraries raise one of their own for that of the network."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
