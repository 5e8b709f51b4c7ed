"""How long a store is waited for: with ftl.sources.silence all numbers, which docs/checkpoints.md tells users.

A request that is not answered fails after `silence_s`, and no client asks again by itself then. What has failed is
asked again after DELAYS_S, for as long as patience lasts: without end while training goes on, for PATIENCE_S at the end
of a run, for START_PATIENCE_S at its start. What a client does try again by itself (a refusal that may pass, a
connection that was torn down) it does five times within half a minute, or as a server asks by Retry-After, each time at
most MAX_WAIT_S.
"""

import os
import time

PATIENCE_S = float(os.environ.get("FTL_STORE_PATIENCE_S", "600"))
"""How long a store may go on failing at the end of a run, when there is nothing else to do."""
START_PATIENCE_S = 0.3 * PATIENCE_S
"""The same at the start: three minutes, while a machine with GPUs waits and `resume` is all that giving up costs."""
DELAYS_S = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
"""Before the second try, the third and so on; the last one from then on."""
_XET_AT_START = {
    "HF_XET_CLIENT_READ_TIMEOUT": "30s",
    "HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "2",
    "HF_XET_CLIENT_RETRY_MAX_DURATION": "60s",
}
"""Its own are five tries of two minutes."""


def bound_xet() -> None:
    """Have hf_xet, if this process comes to use it, give up a download that is silent, unless its variables are set."""
    for name, value in _XET_AT_START.items():
        os.environ.setdefault(name, value)


class Patience:
    """Has an end, START_PATIENCE_S after it began or something last came."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def renew(self) -> None:
        """Something has come."""
        self._since = time.monotonic()

    def pause(self, tries: int) -> bool:
        """Wait before the next try, of which there were so many; False, at once, where patience ends meanwhile."""
        delay = DELAYS_S[min(tries, len(DELAYS_S)) - 1]
        if time.monotonic() + delay > self._since + START_PATIENCE_S:
            return False
        time.sleep(delay)
        return True
