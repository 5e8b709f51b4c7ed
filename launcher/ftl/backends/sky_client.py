"""SkyPilot in its own environment, as a process that answers one question after the other."""

import atexit
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from ftl.errors import BackendError, Problem

PYTHON_VARIABLE = "FTL_SKYPILOT_PYTHON"
VERSION = "0.14"
"""The minor version that the worker is written for: SkyPilot's own interfaces change with each."""
_INSTALL = f"`pipx install 'skypilot[aws]=={VERSION}.*'`, or `make .venv/sky/complete` in a checkout"
_WORKER = Path(__file__).with_name("sky_worker.py")
_LIMITS_S = {"hello": 120, "check": 120, "launch": 300, "ready": 300, "fetch": 3600, "down": 900, "run": 120}
_LIMIT_S = 180
UNREACHABLE = ("ConnectionError", "ApiServerConnectionError", "ServerTemporarilyUnavailableError", "ReadTimeout")
"""What is raised where the API server, or the internet, does not answer."""


class SkyError(BackendError):
    """What SkyPilot said no with; `kind` is the class of its exception."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind, self.text = kind, text
        self.is_unreachable = kind in UNREACHABLE
        if self.is_unreachable:
            remedy = "`sky api info` says which server it is, `sky api start` starts one here"
            super().__init__(Problem("SkyPilot's API server", text.partition(". Please ensure")[0], None, remedy))
        else:
            super().__init__(Problem("SkyPilot", text))


@lru_cache(maxsize=8)
def shared_worker(without: tuple[str, ...]) -> "Sky":
    """One worker for all runs of this process that keep the same secrets from SkyPilot."""
    return Sky(without)


def interpreter() -> Path:
    """The Python of SkyPilot's environment: that of FTL_SKYPILOT_PYTHON, of the checkout, or of the `sky` on PATH.

    Raises BackendError where there is none.
    """
    given = os.environ.get(PYTHON_VARIABLE)
    if given:
        if not os.access(given, os.X_OK):
            raise BackendError(Problem(PYTHON_VARIABLE, given, "cannot be run", "name a Python that has SkyPilot"))
        return Path(given)
    own = Path(sys.prefix) / "sky/bin/python"
    if own.exists():
        return own
    command = shutil.which("sky")
    found = _shebang(Path(command)) if command else None
    if found is None:
        raise BackendError(Problem("provider 'skypilot'", "SkyPilot is not installed", None, _INSTALL))
    return found


def _shebang(script: Path) -> Path | None:
    """The Python that a command was installed with."""
    try:
        with script.open("rb") as file:
            first = file.readline(4096).decode(errors="replace").strip()
    except OSError:
        return None
    words = first.removeprefix("#!").split()
    if not first.startswith("#!") or not words:
        return None
    python = Path(words[0])
    return python if python.name.startswith("python") and os.access(python, os.X_OK) else None


class Sky:
    """The worker, started at the first question and again where it died."""

    def __init__(self, without: Iterable[str] = ()) -> None:
        """`without` are variables of this shell that SkyPilot must not see: it keeps some of them in its database."""
        self._without = frozenset(without)
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0
        self._rest = b""

    def ask(self, op: str, limit_s: float | None = None, **order: Any) -> Any:  # Any: JSON
        """What the worker answers. Raises SkyError with what SkyPilot said, and BackendError where it says nothing."""
        process = self._started()
        self._count += 1
        line = json.dumps({"id": self._count, "op": op, **order}) + "\n"
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(line.encode())
            process.stdin.flush()
        except BrokenPipeError:
            pass  # what it said last is in its answer, or in its end
        limit = limit_s or _LIMITS_S.get(op, _LIMIT_S)
        give_up = time.monotonic() + limit
        answer = self._answer(process.stdout, give_up)
        if answer is None:
            self.close()
            told = f"no answer in {limit:g} s" if time.monotonic() >= give_up else "its process ended without an answer"
            raise BackendError(Problem("SkyPilot", f"`{op}`", told, "`sky api status` may say why"))
        if "error" in answer:
            raise SkyError(answer["error"]["kind"], answer["error"]["text"])
        return answer["value"]

    def close(self) -> None:
        """End the worker. What SkyPilot's API server has been asked for goes on."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._rest = b""
        self._process = subprocess.Popen(
            [str(interpreter()), str(_WORKER)],
            env=_environment(self._without),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is ours
        )
        atexit.register(self.close)
        self._check_version()
        assert self._process is not None
        return self._process

    def _check_version(self) -> None:
        try:
            version = str(self.ask("hello")["version"])
        except SkyError as error:
            given = f"{interpreter()}: {error.text}"
            raise BackendError(Problem("provider 'skypilot'", given, "cannot import SkyPilot", _INSTALL)) from error
        if not version.startswith(f"{VERSION}."):
            self.close()
            allowed = f"must be {VERSION}, whose interfaces ftl knows"
            raise BackendError(Problem("provider 'skypilot'", f"SkyPilot {version}", allowed, _INSTALL))

    def _answer(self, stream: IO[bytes], give_up: float) -> dict[str, Any] | None:  # Any: JSON
        """The next answer to the newest question; None at the end of time or of the worker."""
        while True:
            line, newline, rest = self._rest.partition(b"\n")
            if newline:
                self._rest = rest
                answer: dict[str, Any] = json.loads(line)
                if answer["id"] == self._count:
                    return answer
                continue
            left = give_up - time.monotonic()
            if left <= 0 or not select.select([stream], [], [], left)[0]:
                return None
            chunk = os.read(stream.fileno(), 1 << 16)
            if not chunk:
                return None
            self._rest += chunk


def _environment(without: frozenset[str]) -> dict[str, str]:
    """This shell's, less what belongs to ftl's own Python and what SkyPilot must not see."""
    own = {"PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV"}
    kept = {name: value for name, value in os.environ.items() if name not in own and name not in without}
    return {"SKYPILOT_DISABLE_USAGE_COLLECTION": "1", **kept}
