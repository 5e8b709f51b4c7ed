"""python -m ftl_runtime JOB.json: the supervisor of one attempt.

Starts the trainers, passes on requests to stop, keeps the deadline, and as its last act writes exit.json. It trains
nothing and imports nothing heavy, so it answers a signal at any moment.
"""

import signal
import sys
from types import FrameType


class _Requests:
    """Requests to stop that have come as signals: how many. Installed before anything else is imported."""

    def __init__(self) -> None:
        self.num = 0
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._count)
        # The deadline signal is for trainers; sent to the whole group by mistake it must not end the supervisor.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.num += 1


def main() -> int:
    requests = _Requests()
    from pathlib import Path

    from ftl.redact import RedactedStream
    from ftl_runtime.supervisor import supervise

    sys.stderr = RedactedStream(sys.stderr)
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m ftl_runtime JOB.json\n")
        return 2
    return supervise(Path(sys.argv[1]), lambda: requests.num)


if __name__ == "__main__":
    sys.exit(main())
