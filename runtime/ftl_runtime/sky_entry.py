"""python -m ftl_runtime.sky_entry < ORDER: what SkyPilot runs on a machine. Starts the supervisor and tells about it.

The order is {"mark": "...", "job": JobSpec}. SkyPilot brings nothing back from a machine but the job's output, so what
the launcher reads of the run directory goes there too, a line each, beginning with the mark:

    MARK {"start": 1764288000}                                              a start, before its log
    MARK {"file": "events.jsonl", "id": "...", "offset": 0, "line": "..."}  the line of the file that stands at `offset`
    MARK {"file": "exit.json", "start": 1764288000, "text": "..."}          a whole file, at the end

A run that comes from another place brings a checkpoint and its events along, in the directory `carried` of the order.
The launcher has those events, so offsets count from their end.

All other lines are the log. Standard library alone: it has to say so when the rest is not there.
"""

import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

EVENTS_FILE, EXIT_FILE, RESULT_FILE = "events.jsonl", "exit.json", "result.json"
STOP_FILES = "~/sky_workdir"
"""Where `ftl stop` has SkyPilot put a file: the run is to save and stop, and not to be started again."""
_STREAM_FILE, _KNOWN_FILE = ".events-id", ".events-known"
_POLL_S = 0.3
_PREEMPTED, _ENVIRONMENT = 75, 3
_STOPPED = 1
"""For SkyPilot, which starts a job again that ended with 75: this one is not to be."""


class Output:
    """Standard output, line by line: a mark never stands within a line of the log. Its reader may go away."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._rest = b""

    def log(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._write(line + b"\n")

    def end_line(self) -> None:
        if self._rest:
            self.log(b"\n")

    def tell(self, record: dict[str, Any]) -> None:  # Any: JSON
        self.end_line()
        self._write(f"{self._mark} {json.dumps(record)}\n".encode())

    def _write(self, line: bytes) -> None:
        try:
            while line:
                line = line[os.write(1, line) :]
        except OSError:
            pass  # the launcher reads the run directory by another way, or not at all


class Events:
    """Tells the lines that are appended to events.jsonl, those of earlier starts in the same directory included."""

    def __init__(self, run_dir: Path, out: Output) -> None:
        self._path, self._out = run_dir / EVENTS_FILE, out
        self._offset = self._known = int(_text(run_dir / _KNOWN_FILE) or 0)
        self.id = _stream_id(run_dir)

    def tell(self) -> None:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                content = file.read()
        except OSError:
            return
        *lines, _ = content.split(b"\n")
        for line in lines:
            record = {"file": EVENTS_FILE, "id": self.id, "offset": self._offset - self._known}
            self._out.tell({**record, "line": line.decode(errors="replace")})
            self._offset += len(line) + 1


class Signals:
    """Passes requests to stop on to the supervisor."""

    def __init__(self) -> None:
        self._early: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def pass_to(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        for number in self._early:
            process.send_signal(number)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._process is None:
            self._early.append(number)
        elif self._process.poll() is None:
            self._process.send_signal(number)


def main() -> int:
    signals = Signals()
    order = json.load(sys.stdin)
    job = order["job"]
    paths = job["paths"] = _expanded(job["paths"])
    node = int(os.environ.get("SKYPILOT_NODE_RANK") or 0)
    run_dir = Path(paths["run"])
    for directory in (run_dir, Path(paths["cache"])):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _keep_private(paths.get("secrets"))
    if node == 0 and "carried" in order:
        take_along(Path(_expanded(order["carried"])), run_dir)
    job_file = run_dir / ("job.json" if node == 0 else f"job-{node}.json")
    _write(job_file, json.dumps(job, indent=1))
    command = [sys.executable, "-m", "ftl_runtime", str(job_file)]
    if node:
        return _follow(node, command, run_dir, signals)
    stop_file = Path(_expanded(STOP_FILES), order["mark"].replace("@ftl:", "ftl-stop-"))
    return _lead(job["attempt"], command, run_dir, signals, Output(order["mark"]), stop_file)


def _lead(attempt: int, command: list[str], run_dir: Path, signals: Signals, out: Output, stop_file: Path) -> int:
    """The work of the first machine."""
    start = round(time.time(), 3)
    events = Events(run_dir, out)
    out.tell({"start": start})
    (run_dir / EXIT_FILE).unlink(missing_ok=True)
    process = subprocess.Popen(
        command, cwd=run_dir, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    signals.pass_to(process)
    _relay(process, out, events, stop_file)
    code = _status(process.wait())
    events.tell()
    if stop_file.exists() and not (run_dir / EXIT_FILE).exists():
        code = _PREEMPTED
        told = "it was asked to stop, and ended before it could say how it stands"
        record = {"attempt": attempt, "exit_code": code, "cause": "signal", "message": told}
        _write(run_dir / EXIT_FILE, json.dumps(record))
    for name in (RESULT_FILE, EXIT_FILE):
        text = _text(run_dir / name)
        if text is not None:
            out.tell({"file": name, "start": start, "text": text})
    return _told_to_skypilot(code, _text(run_dir / EXIT_FILE), was_stopped=stop_file.exists())


def _follow(node: int, command: list[str], run_dir: Path, signals: Signals) -> int:
    """The work of another machine. SkyPilot kills all machines once one fails, in the middle of a save or an upload,
    and starts a run again where any says so: where the first machine knows how this one ended, it answers alone."""
    told = run_dir / f"exit-{node}.json"
    told.unlink(missing_ok=True)
    process = subprocess.Popen(command, cwd=run_dir, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    signals.pass_to(process)
    code = _status(process.wait())
    return 0 if told.exists() else code


def take_along(carried: Path, run_dir: Path) -> None:
    """Put what came with the order into the run directory, unless it is there. A start after this one finds it so."""
    for path in sorted(carried.rglob("manifest.json")):
        name = path.parent.relative_to(carried)
        target = run_dir / name
        if not (target / path.name).exists():
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            stage = target.with_name(f".tmp-{target.name}")
            shutil.rmtree(stage, ignore_errors=True)
            shutil.copytree(path.parent, stage)
            shutil.rmtree(target, ignore_errors=True)
            stage.rename(target)
    for path in sorted(path for path in carried.iterdir() if path.is_file()):
        own = run_dir / path.name
        if own.exists() and own.stat().st_size >= path.stat().st_size:
            continue
        if path.name == EVENTS_FILE:
            (run_dir / _STREAM_FILE).unlink(missing_ok=True)
            _write(run_dir / _KNOWN_FILE, str(path.stat().st_size))
        part = own.with_name(f".{own.name}.new")
        shutil.copyfile(path, part)
        part.replace(own)


def _relay(process: "subprocess.Popen[bytes]", out: Output, events: Events, stop_file: Path) -> None:
    """Until the supervisor is gone, which is told to stop once that file is there. What it leaves behind may hold its
    output open, and is not waited for."""
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    os.set_blocking(pipe, False)
    is_open, is_told = True, False
    while True:
        has_ended = process.poll() is not None
        if not is_told and stop_file.exists():
            process.terminate()
            is_told = True
        if is_open and select.select([pipe], [], [], 0 if has_ended else _POLL_S)[0]:
            chunk = os.read(pipe, 1 << 16)
            is_open = bool(chunk)
            out.log(chunk)
        elif has_ended:
            break
        elif not is_open:
            time.sleep(_POLL_S)
        events.tell()
    out.end_line()


def _told_to_skypilot(code: int, exit_record: str | None, *, was_stopped: bool) -> int:
    """The supervisor's code; but 75 only where the run is to go on elsewhere."""
    if code != _PREEMPTED:
        return code
    try:
        cause = json.loads(exit_record or "{}").get("cause")
    except ValueError:
        cause = None
    return _STOPPED if was_stopped or cause == "deadline" else code


def _status(code: int) -> int:
    return 128 - code if code < 0 else code


def _expanded(value: Any) -> Any:  # Any: JSON
    """Paths with this machine's home in the place of `~`."""
    if isinstance(value, dict):
        return {key: _expanded(item) for key, item in value.items()}
    return str(Path(os.path.expandvars(value)).expanduser()) if isinstance(value, str) else value


def _keep_private(directory: str | None) -> None:
    if directory is None or not Path(directory).is_dir():
        return
    Path(directory).chmod(0o700)
    for file in Path(directory).iterdir():
        file.chmod(0o600)


def _stream_id(run_dir: Path) -> str:
    """Which events.jsonl it is: the same one again when a run goes on in the same directory."""
    file = run_dir / _STREAM_FILE
    found = _text(file)
    if found is None:
        found = f"{time.time():.3f}-{secrets.token_hex(4)}"
        _write(file, found)
    return found


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(text)
    temporary.replace(path)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_ENVIRONMENT)
