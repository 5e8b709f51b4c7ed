"""The log of a job as it comes."""

import threading
import time

from . import errors, lookup

AGAIN_S = 5.0
"""A log that has broken off is read again so long after."""
_streams = {}


class Stream:
    """The log of a job as it comes, read by a thread of its own."""

    def __init__(self, order):
        self._order = order
        self.text = []
        self.ended = None
        self._ended_at = 0.0
        threading.Thread(target=self._read, daemon=True).start()

    def has_broken_off(self):
        """Whether it has ended some time ago."""
        return self.ended is not None and time.monotonic() - self._ended_at > AGAIN_S

    def _read(self):
        self.ended = self._read_all()
        self._ended_at = time.monotonic()

    def _read_all(self):
        """Why it has ended; nothing where the job has."""
        import sky

        try:
            if self._order["managed"]:
                lines = sky.jobs.tail_logs(job_id=self._order["job_id"], follow=True, preload_content=False)
            else:
                lines = sky.tail_logs(self._order["name"], lookup.JOB, follow=True, preload_content=False)
            for line in lines:
                if line is not None:  # SkyPilot's sign of life, where the job has said nothing for 30 s
                    self.text.append(line)
        except Exception as error:
            return errors.said(error)
        return ""


def log(order):
    """What the log has grown by since `offset` pieces; starts to read it, and starts again where that broke off."""
    stream = _streams.get(order["name"])
    if stream is None or (stream.has_broken_off() and order["offset"] >= len(stream.text)):
        _streams[order["name"]] = Stream(order)
        return {"pieces": [], "offset": 0, "ended": None, "is_fresh": True}
    ended, pieces = stream.ended, stream.text[order["offset"] :]
    return {"pieces": pieces, "offset": order["offset"] + len(pieces), "ended": ended, "is_fresh": False}
