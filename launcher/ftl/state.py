"""Where ftl keeps what it must remember (state) and what it can make again (cache) on this machine."""

import os
from pathlib import Path


def state_dir() -> Path:
    """FTL_STATE_DIR, else XDG_STATE_HOME/ftl, else ~/.local/state/ftl. Not made by asking."""
    return _directory("FTL_STATE_DIR", "XDG_STATE_HOME", ".local/state")


def cache_dir() -> Path:
    """FTL_CACHE_DIR, else XDG_CACHE_HOME/ftl, else ~/.cache/ftl. Not made by asking."""
    return _directory("FTL_CACHE_DIR", "XDG_CACHE_HOME", ".cache")


def make_private(path: Path) -> Path:
    """Make the directory and every missing one above it, for this user alone; the same path."""
    if not path.exists():
        make_private(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    return path


def _directory(own: str, xdg: str, below_home: str) -> Path:
    if os.environ.get(own):
        return Path(os.environ[own]).expanduser().absolute()
    return Path(os.environ.get(xdg) or Path.home() / below_home) / "ftl"
