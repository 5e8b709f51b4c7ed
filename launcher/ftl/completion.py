"""What the shell offers on Tab. Light: it runs at every press of the key."""

import os
from pathlib import Path

from ftl.state import state_dir


def run_ids(incomplete: str) -> list[str]:
    """The ids of known runs that begin with what has been typed, newest first."""
    runs = state_dir() / "runs"
    if not runs.is_dir():
        return []
    names = [e for e in os.scandir(runs) if e.name.startswith(incomplete) and (Path(e.path) / "record.json").exists()]
    return [entry.name for entry in sorted(names, key=lambda e: e.stat().st_mtime, reverse=True)]
