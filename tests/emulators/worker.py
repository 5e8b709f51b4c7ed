"""Work done in a process of its own, whose environment the real clients read once: JSON lines in and out.

A worker is a file with a class that asks and a function that answers:

    class RowWorker(Worker):
        file = __file__

    def answer(request): ...

    if __name__ == "__main__":
        serve(answer)

in:   {"env": {"HF_TOKEN": "..."}, ...}    the request; its variables hold for it alone
out:  {"waits": [seconds...], ...}         the answer, with what the clients would have waited between tries
or:   {"refused": "the sentence", "kind": "ConfigError", "waits": [...]}
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, ClassVar

_FOREIGN = ("HF_", "AWS_", "GCSFS_", "STORAGE_EMULATOR_")
"""Beginnings of variables of this shell that no worker gets."""


class Worker:
    """Starts the process of `file`; without xet, unless `env` says otherwise."""

    file: ClassVar[str]

    def __init__(self, env: dict[str, str]) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        path = os.pathsep.join(entry for entry in sys.path if entry)
        mine = {"PYTHONPATH": path, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
        self._process = subprocess.Popen(
            [sys.executable, self.file],
            env={**kept, **mine, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request: Any) -> dict[str, Any]:  # Any: JSON
        """What comes of the request; see the top of this file."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the worker has crashed while it did {request}"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._process.communicate(timeout=30)


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:  # Any: JSON
    """Answer requests until there are no more. What is raised for a user is an answer too; a bug ends the process."""
    from ftl.errors import FtlError
    from ftl_runtime.checkpoint.manifest import BrokenCheckpoint

    waits: list[float] = []
    pause = asyncio.sleep

    async def wait(seconds: float, result: Any = None) -> Any:  # Any: as that of asyncio
        waits.append(seconds)
        return await pause(0, result)

    time.sleep, asyncio.sleep = waits.append, wait  # the budget of the retries is looked at, not waited for
    for line in sys.stdin:
        request = json.loads(line)
        env = request.pop("env", None) or {}
        waits.clear()
        before = {name: os.environ.get(name) for name in env}
        os.environ.update(env)
        try:
            given = answer(request)
        except (FtlError, BrokenCheckpoint) as e:
            given = {"refused": str(e), "kind": type(e).__name__}
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        sys.stdout.write(json.dumps(given | {"waits": waits}) + "\n")
        sys.stdout.flush()
