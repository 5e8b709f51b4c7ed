"""Where ftl keeps what it must remember (state) and what it can make again (cache) on this machine."""

import os
from pathlib import Path


def state_dir() -> Path:
    """FTL_STATE_DIR, else XDG_STATE_HOME/ftl, else ~/.local/state/ftl. Made if missing, for this user alone."""
    return _directory("FTL_STATE_DIR", "XDG_STATE_HOME", ".local/state")


def cache_dir() -> Path:
    """FTL_CACHE_DIR, else XDG_CACHE_HOME/ftl, else ~/.cache/ftl. Made if missing, for this user alone."""
    return _directory("FTL_CACHE_DIR", "XDG_CACHE_HOME", ".cache")


def _directory(own: str, xdg: str, below_home: str) -> Path:
    if os.environ.get(own):
        path = Path(os.environ[own]).expanduser().absolute()
    else:
        path = Path(os.environ.get(xdg) or Path.home() / below_home) / "ftl"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
