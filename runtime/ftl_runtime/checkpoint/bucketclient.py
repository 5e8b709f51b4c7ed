"""The file system of an address, with patience that ends."""

import os
from collections.abc import Callable
from typing import Any

from ftl.sources.hubrepo import make_patient
from ftl.sources.silence import CONNECT_S, silence_s

_ANSWER_S = 15.0
_S3FS_TRIES, _BOTOCORE_TRIES = 2, 3


def open_system(url: str) -> tuple[Any, str]:  # Any: fsspec ships no types
    """The file system, and the place in it. Asks nobody yet."""
    import fsspec

    scheme = url.partition(":")[0]
    system, place = fsspec.url_to_fs(url, use_listings_cache=False, **_OPTIONS[scheme]())
    if scheme == "s3":
        system.retries = _S3FS_TRIES
    return system, place.rstrip("/")


def _local() -> dict[str, Any]:  # Any: as fsspec takes them
    return {"auto_mkdir": True}


def _s3() -> dict[str, Any]:  # Any: as above
    """Tries of botocore, for each of those that s3fs makes; they multiply."""
    silence = silence_s(is_question=True, at_most=_ANSWER_S)
    limits = {"connect_timeout": min(CONNECT_S, silence), "read_timeout": silence}
    tries = {} if "AWS_MAX_ATTEMPTS" in os.environ else {"retries": {"total_max_attempts": _BOTOCORE_TRIES}}
    return {"config_kwargs": limits | tries}


def _gs() -> dict[str, Any]:  # Any: as above
    """gcsfs waits without end, asks six times, and passes by the proxy that the environment names."""
    import aiohttp

    silence = silence_s(is_question=True, at_most=_ANSWER_S)
    limits = aiohttp.ClientTimeout(total=None, sock_connect=min(CONNECT_S, silence), sock_read=silence)
    return {"requests_timeout": limits, "session_kwargs": {"trust_env": True}}


def _hf() -> dict[str, Any]:  # Any: as above
    make_patient()
    return {}


_OPTIONS: dict[str, Callable[[], dict[str, Any]]] = {"file": _local, "s3": _s3, "gs": _gs, "hf": _hf}  # Any: as above
