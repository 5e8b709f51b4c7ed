"""Opens sources in a process of its own, whose environment the real clients read once: a line of JSON in, one out.

in:   {"dataset": {...}, "downloads": "...", "is_streamed": false, "start": 0, "env": {"HF_TOKEN": "..."}}
out:  {"rows": [[number, where, data]...], "problems": ["..."], "revision", "identity", "waits": [seconds...]}
or:   {"refused": "the sentence", "kind": "ConfigError", "waits": [...]}
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ftl.config.data import DatasetSection
from ftl.errors import FtlError, Problem
from ftl.sources import open_source


class SourceWorker:
    """A worker and the way to ask it."""

    def __init__(self, env: dict[str, str]) -> None:
        path = os.pathsep.join(p for p in sys.path if p)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "AWS_"))}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**kept, "PYTHONPATH": path, "HF_HUB_DISABLE_TELEMETRY": "1", **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def read(self, dataset: dict[str, Any], **request: Any) -> dict[str, Any]:  # Any: JSON
        """What comes of that dataset section; see the top of this file."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"dataset": dataset, **request}) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        self._process.communicate(timeout=30)


def _answer(request: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    downloads = Path(request["downloads"]) if "downloads" in request else None
    dataset = DatasetSection.model_validate(request["dataset"])
    source = open_source(
        dataset, lambda _: None, seed=42, download_dir=downloads, is_streamed=request.get("is_streamed", False)
    )
    found = list(source.scan(start=request.get("start", 0)))
    return {
        "rows": [[row.number, row.where, row.data] for row in found if not isinstance(row, Problem)],
        "problems": [str(problem) for problem in found if isinstance(problem, Problem)],
        "revision": source.revision,
        "identity": source.identity(),
        "num_rows": source.num_rows(),
    }


def _main() -> None:
    waits: list[float] = []
    time.sleep = waits.append  # the budget of the retries is looked at, not waited for
    for line in sys.stdin:
        request = json.loads(line)
        waits.clear()
        os.environ.update(request.get("env", {}))
        try:
            answer = _answer(request)
        except FtlError as e:
            answer = {"refused": str(e), "kind": type(e).__name__}
        for name in request.get("env", {}):
            del os.environ[name]
        sys.stdout.write(json.dumps(answer | {"waits": waits}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
