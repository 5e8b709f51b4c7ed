"""The files of a run directory on a machine that SkyPilot rents, put together here from the output of its job.

runtime/ftl_runtime/sky_entry.py says what stands in the output. SkyPilot shows it from the start again whenever it is
asked, and of a job that it has moved to another machine only what that one says; so each line tells where it belongs.
"""

import json
import re
import time
from pathlib import Path
from typing import Any

from ftl.atomic import write_atomic
from ftl.contract import EVENTS_FILE, EXIT_FILE, LOG_FILE, RESULT_FILE

FOLDER = "skypilot"
"""In the run directory on this machine. Of a run that came from another place there is one for each time, named after
the size of the events that came with it: those, in the run directory itself, go before what is in the folder."""
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_PREFIX = re.compile(r"^\([^()]*pid=\d+[^()]*\) ?")
"""What SkyPilot puts before each line of a job."""


class Mirror:
    """What is known of the files so far; kept on this machine, where it outlives the other one."""

    def __init__(self, run_dir: Path, mark: str) -> None:
        self._mark = mark
        self._before = {name: _content(run_dir / name) for name in (EVENTS_FILE, LOG_FILE)}
        size = len(self._before[EVENTS_FILE])
        self._folder = run_dir / (f"{FOLDER}-{size}" if size else FOLDER)
        self._events: dict[str, bytes] = {}
        self._logs: dict[str, bytes] = {}
        self._whole: dict[str, tuple[float, bytes]] = {}
        self._start = ""
        self._fresh_log = b""
        self._rest = ""
        self.newest_event_at = 0.0
        """When the newest event was that the output has told of, by the clock of its machine."""
        self._load()

    def feed(self, text: str) -> None:
        """Take in what the output has grown by. Whole lines count."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(line)

    def begin_again(self) -> None:
        """The output is about to come from its start."""
        self._rest = ""
        self._start = ""
        self._fresh_log = b""

    def file(self, name: str) -> bytes:
        """A file of the run directory as far as it is known: those of each start, one after the other."""
        if name == EVENTS_FILE:
            return self._before[name] + b"".join(self._events[key] for key in sorted(self._events, key=_time_of))
        if name == LOG_FILE:
            return self._before[name] + b"".join(self._logs[key] for key in sorted(self._logs, key=_time_of))
        return self._whole.get(name, (0.0, b""))[1]

    @property
    def has_begun(self) -> bool:
        """Whether the output has come to where the entry speaks; SkyPilot speaks first, and then pauses."""
        return bool(self._start)

    @property
    def newest_start(self) -> float:
        """When the newest start was that is known; 0 before the first."""
        return max((_time_of(key) for key in self._logs if key), default=0.0)

    def file_of_start(self, name: str, start: float) -> bytes:
        """The same, but only where that start wrote it."""
        when, content = self._whole.get(name, (0.0, b""))
        return content if when >= start else b""

    def put(self, name: str, content: bytes) -> None:
        """A whole file that came another way."""
        self._whole[name] = time.time(), content

    def save(self) -> None:
        """Put all that is known on disk; a file there that holds more is left as it is."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for key, content in self._events.items():
            self._save(f"{key}.events", content)
        for key, content in self._logs.items():
            self._save(f"{key or '0'}.log", content)
        for name, (when, content) in self._whole.items():
            record = json.dumps({"start": when, "text": content.decode(errors="replace")})
            write_atomic(self._folder / f"{name}.whole", record.encode())

    def _save(self, name: str, content: bytes) -> None:
        path = self._folder / name
        if not path.exists() or path.stat().st_size < len(content):
            write_atomic(path, content)

    def _load(self) -> None:
        for path in self._folder.glob("*.events") if self._folder.is_dir() else ():
            self._events[path.name.removesuffix(".events")] = path.read_bytes()
        for path in self._folder.glob("*.log") if self._folder.is_dir() else ():
            key = path.name.removesuffix(".log")
            self._logs["" if key == "0" else key] = path.read_bytes()
        for name in (EXIT_FILE, RESULT_FILE):
            try:
                record = json.loads((self._folder / f"{name}.whole").read_bytes())
                self._whole[name] = float(record["start"]), str(record["text"]).encode()
            except (OSError, ValueError, KeyError, TypeError):
                continue

    def _line(self, line: str) -> None:
        at = line.find(self._mark)
        if at < 0:
            shown = _PREFIX.sub("", _ANSI.sub("", line).rstrip("\r"))
            self._fresh_log += f"{shown}\n".encode()
            if len(self._fresh_log) > len(self._logs.get(self._start, b"")):
                self._logs[self._start] = self._fresh_log
            return
        try:
            record = json.loads(_ANSI.sub("", line[at + len(self._mark) :]))
            self._take(record)
        except (ValueError, KeyError, TypeError):
            return  # torn by a machine that went away

    def _take(self, record: dict[str, Any]) -> None:  # Any: JSON
        name = record.get("file")
        if name is None:
            self._start = f"{float(record['start']):.3f}"
            self._fresh_log = b""
            self._logs.setdefault(self._start, b"")
        elif name == EVENTS_FILE:
            key, offset = str(record["id"]), int(record["offset"])
            self.newest_event_at = max(self.newest_event_at, _time_in(str(record["line"])))
            known = self._events.get(key, b"")
            if re.fullmatch(r"[0-9a-f.-]+", key) and offset == len(known):
                self._events[key] = known + f"{record['line']}\n".encode()
        elif name in (EXIT_FILE, RESULT_FILE):
            when = float(record["start"])
            if when >= self._whole.get(name, (0.0, b""))[0]:
                self._whole[name] = when, str(record["text"]).encode()


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _time_in(line: str) -> float:
    """When an event was; 0 for a line that a kill tore."""
    try:
        return float(json.loads(line)["t"])
    except (ValueError, KeyError, TypeError):
        return 0.0


def _time_of(key: str) -> float:
    return float(key.partition("-")[0] or 0)
