"""What saving and sending a checkpoint last took, read from the run's events; what that means for stopping, and which
attempts have stopped.

Imported by the supervisor, so it must stay light.
"""

import json
from pathlib import Path

_MARGIN = 1.2
"""A save may take so many times what the last one took."""
_PUSH_MARGIN = 1.5


class Measured:
    """Fields are of the newest events that `read` has come to, over all attempts."""

    def __init__(self, events_file: Path) -> None:
        self._path = events_file
        self._offset = 0
        self.save_s: float | None = None
        """Until it was verified."""
        self.push_s: float | None = None
        """Of the slowest store, as its last one went."""
        self.sent: dict[str, int] = {}
        """Store -> step of the newest checkpoint that is known to be there."""
        self.stopped: set[int] = set()
        """Attempts that have told where they stopped."""
        self._push_s: dict[str, float] = {}

    def read(self) -> "Measured":
        """Take in what was appended since. A file that cannot be read tells nothing."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return self
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            if b'"checkpoint"' in line or b'"stopped"' in line:
                self._take(line)
        return self

    def _take(self, line: bytes) -> None:
        try:
            record = json.loads(line)
            data = record["data"]
            if record["event"] == "stopped":
                self.stopped.add(int(record["attempt"]))
            if record["event"] != "checkpoint":
                return
            if data["state"] == "verified":
                self.save_s = float(data["seconds"])
            elif data["state"] in ("pushed", "fetched"):
                store, step = str(data["store"]), int(data["step"])
                self.sent[store] = max(step, self.sent.get(store, step))
                if data["state"] == "pushed":
                    self._push_s[store] = float(data["seconds"])
                    self.push_s = max(self._push_s.values())
        except (ValueError, KeyError, TypeError):
            return


def fits(save_s: float | None, left_s: float) -> bool:
    """Whether a save may be started with `left_s` to go; where none was measured it may."""
    return save_s is None or save_s * _MARGIN <= left_s


def lead_s(timeout_s: float, grace_s: float, save_s: float | None, push_s: float | None) -> float:
    """How long before a deadline to ask for the stop: the grace time, or longer where saving and sending took longer.

    A short timeout keeps half of it for training.
    """
    needed = (save_s or 0.0) * _MARGIN + (push_s or 0.0) * _PUSH_MARGIN
    return min(max(grace_s, needed), timeout_s / 2)


def where_sent(sent: dict[str, int]) -> str:
    """The newest checkpoint that is in a store, in words."""
    if not sent:
        return "no checkpoint is in a store yet"
    store = max(sent, key=lambda each: sent[each])
    return f"the newest checkpoint in a store is step {sent[store]} in {store}"
