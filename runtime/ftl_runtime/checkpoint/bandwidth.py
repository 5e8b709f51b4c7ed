"""The bound on what this process sends, all stores together: `max_upload_mb_per_s` of the cloud file.

Clients of stores bound nothing, and hf_xet is compiled code. But each of them sends through the proxy that the
environment names, so that is one of ours: uploadproxy.py. Copies to directories pay for themselves (`Rate.copy`).
"""

import os
import threading
from collections.abc import MutableMapping
from pathlib import Path
from time import monotonic, sleep

from ftl.sources.silence import allow_for_slowness
from ftl_runtime.checkpoint.uploadproxy import UploadProxy

_MB = 1_000_000
_PIECE_S = 0.1
_XET_BLOCK_MB = 64
_UNSENT_MB = 60
"""What a client may have written that waits on this machine, in the buffers of up to twenty connections."""


class Rate:
    """So many bytes a second, for all threads together. What was not used is saved up for _PIECE_S: it makes good for
    sleeps that last too long."""

    def __init__(self, bytes_per_s: float) -> None:
        self.bytes_per_s = bytes_per_s
        self.piece = max(1024, min(1 << 16, int(bytes_per_s * _PIECE_S)))
        """Bytes to ask for at a time."""
        self._lock = threading.Lock()
        self._free_at = monotonic()

    def take(self, num_bytes: int) -> None:
        """Wait for the turn of so many bytes."""
        with self._lock:
            start = max(monotonic() - _PIECE_S, self._free_at)
            self._free_at = start + num_bytes / self.bytes_per_s
        sleep(max(0.0, start - monotonic()))

    def copy(self, source: Path, target: Path) -> None:
        """Copy a file at this rate."""
        with source.open("rb") as read, target.open("wb") as written:
            while piece := read.read(self.piece):
                self.take(len(piece))
                written.write(piece)


def bound_uploads(mb_per_s: float, env: MutableMapping[str, str] = os.environ) -> Rate:
    """Have whatever this process sends from here on keep to a rate, and its clients be patient with that.

    Raises ConfigError where the environment names a proxy that is not asked over HTTP.
    """
    rate = Rate(mb_per_s * _MB)
    proxy = UploadProxy(rate.take, rate.piece, dict(env))
    proxy.start()
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        env.pop(name, None)
        env.pop(name.upper(), None)
    for name in ("http_proxy", "https_proxy"):
        env[name] = env[name.upper()] = proxy.url
    # A block of xet must be over before its client takes the silence of the answer for a failure.
    env.setdefault("HF_XET_CLIENT_READ_TIMEOUT", f"{120 + _XET_BLOCK_MB / mb_per_s:.0f}s")
    env.setdefault("HF_XET_FIXED_UPLOAD_CONCURRENCY", "1")
    allow_for_slowness(_UNSENT_MB / mb_per_s)
    return rate
