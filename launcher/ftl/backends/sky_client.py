"""SkyPilot in its own environment, as a process that answers questions."""

import atexit
import contextlib
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ftl.errors import BackendError, Problem

_LOG = logging.getLogger("ftl.skypilot")
PYTHON_VARIABLE = "FTL_SKYPILOT_PYTHON"
VERSION = "0.14"
"""The minor version that the worker is written for: SkyPilot's own interfaces change with each."""
_INSTALL = f"`pipx install 'skypilot[aws]=={VERSION}.*'`, or `make .venv/sky/complete` in a checkout"
_WORKER = """
import sys
sys.path = [*filter(None, sys.path), sys.argv[1]]
import sky_worker
sys.path.pop()
sky_worker.main()
"""
"""Run with the directory of that package. SkyPilot must find its own modules alone: none of the directory of whoever
asks, which stands first with `python -c`, and not the docker.py that lies beside the package."""
_SILENCE_S = 4.0
"""So long the first answer may take before that is explained."""
_LIMITS_S = {"hello": 120, "check": 120, "launch": 300, "ready": 300, "fetch": 3600, "down": 900}
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


WORKERS: "dict[tuple[str, ...], Sky]" = {}
"""Those of `shared_worker`."""


def shared_worker(without: tuple[str, ...]) -> "Sky":
    """One worker for all runs of this process that keep the same secrets from SkyPilot."""
    return WORKERS.setdefault(without, Sky(without))  # in one step, for threads


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
    """The worker, started at the first question and again where it died. Threads may ask at the same time."""

    def __init__(self, without: Iterable[str] = ()) -> None:
        """`without` are variables of this shell that SkyPilot must not see: it keeps some of them in its database."""
        self._without = frozenset(without)
        self._starting = threading.RLock()
        self._answered = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0
        self._answers: dict[int, dict[str, Any]] = {}  # Any: JSON
        self._ended: set[int] = set()
        self._is_known = False
        """Whether it has answered, or why it does not was told."""

    def ask(self, op: str, limit_s: float | None = None, **order: Any) -> Any:  # Any: JSON
        """What the worker answers. Raises SkyError with what SkyPilot said, and BackendError where it says nothing."""
        with self._starting:
            process = self._started()
            self._count += 1
            number = self._count
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # what it said last is in its answer, or in its end
                process.stdin.write((json.dumps({"id": number, "op": op, **order}) + "\n").encode())
                process.stdin.flush()
        limit = limit_s or _LIMITS_S.get(op, _LIMIT_S)

        def is_over() -> bool:
            return number in self._answers or process.pid in self._ended

        with self._answered:
            silence = limit if self._is_known or op == "hello" else min(_SILENCE_S, limit)
            if not self._answered.wait_for(is_over, silence) and silence < limit:
                _LOG.warning("waiting for SkyPilot's API server, which may have to start first")
                self._is_known = True
                self._answered.wait_for(is_over, limit - silence)
            has_ended = process.pid in self._ended
            answer = self._answers.pop(number, None)
            self._is_known |= answer is not None and op != "hello"
        if answer is None:
            self.close()
            told = "its process ended without an answer" if has_ended else f"no answer in {limit:g} s"
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
        process = self._process = subprocess.Popen(
            [str(interpreter()), "-c", _WORKER, str(Path(__file__).parent)],
            env=_environment(self._without),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is ours
        )
        self._ended.discard(process.pid)
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        atexit.register(self.close)
        self._check_version()
        return process

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

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Take in the answers of a worker until its end."""
        assert process.stdout is not None
        for line in process.stdout:
            answer = json.loads(line)
            with self._answered:
                self._answers[answer["id"]] = answer
                self._answered.notify_all()
        with self._answered:
            self._ended.add(process.pid)
            self._answered.notify_all()


def _environment(without: frozenset[str]) -> dict[str, str]:
    """This shell's, less what belongs to ftl's own Python and what SkyPilot must not see."""
    own = {"PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV"}
    kept = {name: value for name, value in os.environ.items() if name not in own and name not in without}
    return {"SKYPILOT_DISABLE_USAGE_COLLECTION": "1", **kept}
