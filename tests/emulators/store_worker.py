"""Talks to remote checkpoint stores in a process of its own, whose environment the real clients read once.

in:   {"store": {"kind": "hub", ...}, "run_id": "run-a", "name": "any", "call": "put", "with": {...}}
out:  {"gave": ..., "told": [[done, total]...], "waits": [seconds...]}
or:   {"raised": "SupersededError", "says": "the sentence", "waits": [...]}

A store is opened once for each `name`, as by a process of its own.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ftl.errors import FtlError
from ftl_runtime.checkpoint.manifest import BrokenCheckpoint
from ftl_runtime.checkpoint.remote import RemoteStore, open_store
from ftl_runtime.checkpoint.store import Checkpoint


class StoreRaisedError(Exception):
    """What the store raised, by name and sentence."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(f"{kind}: {sentence}")
        self.kind = kind


class StoreWorker:
    def __init__(self, env: dict[str, str]) -> None:
        path = os.pathsep.join(p for p in sys.path if p)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "AWS_"))}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**kept, "PYTHONPATH": path, "HF_HUB_DISABLE_TELEMETRY": "1", **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, store: dict[str, Any], name: str, call: str, **given: Any) -> dict[str, Any]:  # Any: JSON
        """See the top of this file. Raises StoreRaisedError."""
        assert self._process.stdin is not None and self._process.stdout is not None
        request = {"store": store, "run_id": "run-a", "name": name, "call": call, "with": given}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        if "raised" in answer:
            raise StoreRaisedError(answer["raised"], answer["says"])
        return answer

    def close(self) -> None:
        self._process.communicate(timeout=30)


_opened: dict[str, RemoteStore] = {}


def _answer(request: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    from pydantic import TypeAdapter

    from ftl.contract import StoreRef

    name = request["name"]
    if name not in _opened:
        _opened[name] = open_store(TypeAdapter(StoreRef).validate_python(request["store"]), request["run_id"])
    store, given = _opened[name], request["with"]
    told: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        told.append((done, total))

    calls: dict[str, Callable[[], Any]] = {
        "claim": lambda: store.claim(given["owner"]),
        "steps": store.steps,
        "put": lambda: store.put(Checkpoint(given["step"], Path(given["path"])), given.get("drop", []), note),
        "fetch": lambda: store.fetch(given["step"], Path(given["dest"]), note),
        "quarantine": lambda: store.quarantine(given["step"]),
        "deliver": lambda: store.deliver(Path(given["path"]), note),
    }
    return {"gave": calls[request["call"]](), "told": told}


def _main() -> None:
    waits: list[float] = []
    time.sleep = waits.append  # what the clients wait between tries is looked at, not waited for
    for line in sys.stdin:
        waits.clear()
        try:
            answer = _answer(json.loads(line))
        except (FtlError, BrokenCheckpoint) as e:
            answer = {"raised": type(e).__name__, "says": str(e)}
        sys.stdout.write(json.dumps(answer | {"waits": waits}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
