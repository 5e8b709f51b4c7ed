"""Pushes tokenised rows in a process of its own, whose environment the real client reads once: JSON lines in and out.

in:   {"push": "me/rows", "data": {section...}, "directory": "...", "env": {"HF_TOKEN": "..."}}
      {"load": "me/rows", "name": "...", "env": {...}}
out:  {"repo", "name", "waits": [seconds...]}   or   {"train": [rows...], "test": [...], "waits"}
or:   {"refused": "the sentence", "kind": "ConfigError", "waits": [...]}
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ftl.config.data import DataSection
from ftl.errors import FtlError
from ftl.sources import open_source
from ftl.tokens import TokenizerView
from ftl_runtime.data.dataset import build_splits
from ftl_runtime.data.push import configuration_of, open_target, push_rows


class PushWorker:
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

    def ask(self, **request: Any) -> dict[str, Any]:  # Any: JSON
        """What comes of the request; see the top of this file."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        self._process.communicate(timeout=30)


def _push(id: str, data: dict[str, Any], directory: Path) -> dict[str, Any]:  # Any: JSON
    repo = open_target(id)
    splits = build_splits(
        DataSection.model_validate(data),
        TokenizerView.load(directory),
        seed=0,
        open=lambda dataset: open_source(dataset, lambda path: directory / path, seed=0, download_dir=None),
        cache_dir=directory / "cache",
        emit=lambda event, fields: None,
    )
    push_rows(splits, repo)
    return {"repo": repo.id, "name": configuration_of(splits)}


def _load(id: str, name: str) -> dict[str, Any]:  # Any: JSON
    import datasets

    datasets.disable_progress_bars()
    return {split: rows.to_list() for split, rows in datasets.load_dataset(id, name).items()}


def _answer(request: dict[str, Any]) -> dict[str, Any]:  # Any: JSON
    if "load" in request:
        return _load(request["load"], request["name"])
    return _push(request["push"], request["data"], Path(request["directory"]))


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
