"""Fetches base models in a process of its own, whose environment the real client reads once: JSON lines in and out.

in:   {"model": {section...}, "wanted": "all", "env": {"HF_TOKEN": "..."}}
out:  {"files": ["config.json", ...], "directory", "revision", "told": [shares...], "waits": [seconds...]}
or:   {"refused": "the sentence", "kind": "ConfigError", "waits": [...]}
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ftl.config.model import ModelSection
from ftl.errors import FtlError


class ModelWorker:
    """A worker and the way to ask it."""

    def __init__(self, env: dict[str, str]) -> None:
        path = os.pathsep.join(p for p in sys.path if p)
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        set_here = {"PYTHONPATH": path, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**kept, **set_here, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def fetch(
        self, env: dict[str, str] | None = None, wanted: str = "all", **model: Any
    ) -> dict[str, Any]:  # Any: JSON
        """What comes of a model section with these fields; see the top of this file."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"model": model, "wanted": wanted, "env": env or {}}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        self._process.communicate(timeout=30)


def _answer(request: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    from ftl_runtime.context import Device
    from ftl_runtime.models.hub import on_this_machine

    told: list[float] = []
    ctx: Any = SimpleNamespace(
        device=Device("cpu", has_bf16=True, rank=0, num_ranks=1),
        resolve_model=lambda given: given,
        emit=lambda event, data: told.append(data["share"]),
    )
    section = ModelSection.model_validate(request["model"])
    found, revision = on_this_machine(section, ctx, wanted=request["wanted"])
    files = sorted(path.name for path in Path(found.base).iterdir())
    return {"files": files, "directory": found.base, "revision": revision, "told": told}


def _main() -> None:
    waits: list[float] = []
    time.sleep = waits.append  # the budget of the retries is looked at, not waited for
    for line in sys.stdin:
        request = json.loads(line)
        waits.clear()
        os.environ.update(request["env"])
        try:
            answer = _answer(request)
        except FtlError as e:
            answer = {"refused": str(e), "kind": type(e).__name__}
        for name in request["env"]:
            del os.environ[name]
        sys.stdout.write(json.dumps(answer | {"waits": waits}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
