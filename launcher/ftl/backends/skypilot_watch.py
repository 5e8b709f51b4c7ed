"""An attempt on SkyPilot as this process knows it: its files as its output tells them, and how it stands."""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ftl.atomic import write_atomic
from ftl.backends.sky_client import Sky, SkyError
from ftl.backends.skypilot_mirror import Mirror
from ftl.contract import EXIT_FILE, JobHandle, JobState
from ftl.cost import Spent

_SETTLE_S = 1.5
_FIRST_LOG_S = 60.0
"""How long the first look at a log may take: seconds, but a minute where the API server has much to do."""
_LAST_LOG_S = 120.0
"""How long the end of a log may take; without it a job that is done would count as lost."""
_SAVE_EVERY_S = 5.0
_ASKED_AFTER_S = 5.0
"""SkyPilot is asked so seldom how an attempt stands: each question is a request that its server runs in a process."""
_ASKED_AFTER_STREAMING_S = 30.0
"""The same while the log of the job comes in, which tells as much."""
_LONG_ANSWERS = 3.0
"""So many times longer than its last answer took is a server left alone, up to _ASKED_AFTER_STREAMING_S: those who
follow runs must not be all that it is busy with."""


class Watched:
    """An attempt as this process knows it."""

    def __init__(self, handle: JobHandle) -> None:
        run_dir = Path(str(handle.ref["run_dir"]))
        self.mirror = Mirror(run_dir, str(handle.ref["mark"]))
        self.state: JobState | None = None
        self.asked_at = 0.0
        self._answer_s = 0.0
        self._is_streaming = False
        self._file = run_dir / f"ended-{handle.attempt}.json"
        self._cost_file = run_dir / f"cost-{handle.attempt}.json"
        self._offset = 0
        self._is_first_look = True
        self._num_streams = 0
        self._saved_at = 0.0
        price = handle.ref.get("usd_per_hour")
        self.facts: dict[str, Any] = {} if price is None else {"usd_per_hour": float(price)}  # Any: JSON
        try:
            self.ended: JobState | None = JobState.read_json(self._file.read_bytes())
        except (OSError, ValidationError):
            self.ended = None

    def is_out_of_sight(self, patience_s: float) -> bool:
        """Whether SkyPilot has not answered for so long."""
        return time.monotonic() - self.asked_at > patience_s

    def is_fresh(self) -> bool:
        """Whether what SkyPilot said last will do."""
        has_verdict = self.mirror.file_of_start(EXIT_FILE, self.mirror.newest_start)
        pause_s = _ASKED_AFTER_STREAMING_S if self._is_streaming and not has_verdict else _ASKED_AFTER_S
        pause_s = max(pause_s, min(_LONG_ANSWERS * self._answer_s, _ASKED_AFTER_STREAMING_S))
        return time.monotonic() - self.asked_at < pause_s

    def was_asked(self, since: float) -> None:
        """SkyPilot has answered a question of then."""
        self.asked_at = time.monotonic()
        self._answer_s = self.asked_at - since

    def note(self, found: dict[str, Any]) -> None:  # Any: JSON
        """Keep what SkyPilot says of the machine."""
        self.facts |= {key: value for key, value in found.items() if value is not None}

    @property
    def _is_kept_here(self) -> bool:
        """Whether this machine keeps the run; `ftl ps --cloud` looks at others, too."""
        return self._file.parent.is_dir()

    @property
    def has_refused(self) -> bool:
        """Whether SkyPilot never got as far as running it."""
        return self.facts.get("status") in ("REFUSED", "FAILED_SETUP", "FAILED_DRIVER")

    def end(self, state: JobState) -> None:
        """It has ended so, and always will have."""
        self.ended = state
        if self._is_kept_here:
            self.mirror.save()
            write_atomic(self._cost_file, json.dumps(self._cost()).encode())
            write_atomic(self._file, state.model_dump_json().encode())

    @property
    def spent(self) -> Spent | None:
        """What it has cost, once it has ended."""
        try:
            record = json.loads(self._cost_file.read_bytes())
            return Spent(float(record["hours"]), float(record["usd_per_hour"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _cost(self) -> dict[str, float]:
        """The time of its machine, and what that costs by the hour, as far as SkyPilot has said so."""
        seconds = self.facts.get("seconds")
        if seconds is None and "launched_at" in self.facts:
            seconds = time.time() - float(self.facts["launched_at"])
        if seconds is None or "usd_per_hour" not in self.facts:
            return {}
        return {"hours": float(seconds) / 3600, "usd_per_hour": float(self.facts["usd_per_hour"])}

    def read_on(self, sky: Sky, address: dict[str, Any]) -> str | None:
        """Take in what the log has grown by; why it has ended, once it has. The first look waits for what is there."""
        if address["managed"] and address["job_id"] is None:
            return None
        looked_at = time.time()
        give_up = time.monotonic() + (_FIRST_LOG_S if self._is_first_look else 0.0)
        quiet_since: float | None = None
        while True:
            told = sky.ask("log", offset=self._offset, **address)
            if told["is_fresh"]:
                self._num_streams += 1
                self.mirror.begin_again()
            self.mirror.feed("".join(told["pieces"]))
            self._offset = int(told["offset"])
            now = time.monotonic()
            if told["pieces"] and self.mirror.has_begun:
                quiet_since = now
            is_quiet = quiet_since is not None and now - quiet_since >= _SETTLE_S
            has_caught_up = self.mirror.newest_event_at >= looked_at  # a fast training is never quiet
            if told["ended"] is not None or is_quiet or has_caught_up or now >= give_up:
                break
            time.sleep(0.2)
        self._is_first_look = False
        self._is_streaming = told["ended"] is None and self.mirror.has_begun
        if self._is_kept_here and time.monotonic() - self._saved_at > _SAVE_EVERY_S:
            self._saved_at = time.monotonic()
            self.mirror.save()
        ended: str | None = told["ended"]
        return ended

    def read_to_end(self, sky: Sky, address: dict[str, Any]) -> None:
        """Take in the rest of the log of a job that has ended. A stream that broke off before its end is read again,
        and so is one that was begun before the job's end and brought no verdict."""
        give_up = time.monotonic() + _LAST_LOG_S
        num_streams = self._num_streams
        while time.monotonic() < give_up:
            try:
                why_ended = self.read_on(sky, address)
            except SkyError:
                return  # its machine is gone
            has_verdict = self.mirror.file_of_start(EXIT_FILE, self.mirror.newest_start)
            if why_ended == "" and (has_verdict or self._num_streams > num_streams):
                return
            time.sleep(0.2)

    def read_rest(self, sky: Sky, address: dict[str, Any]) -> None:
        """Take in what has come of the log of a machine that is gone."""
        if not self._is_first_look:
            with contextlib.suppress(SkyError):
                self.read_on(sky, address)
