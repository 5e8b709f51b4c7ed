"""The Hub client's own connections, on which nothing is waited for without end. Imports httpx2."""

from typing import Any

import httpx2
from huggingface_hub.utils._http import hf_request_event_hook

from ftl.sources.silence import CONNECT_S, MAX_WAIT_S, silence_s


class SilenceError(httpx2.TransportError):
    """No byte has come for too long. Not one of the errors after which the client asks again by itself: each of its
    tries would be as silent, one after another, below ours."""


class PatientClient(httpx2.Client):
    """As the client's own, which waits without end for some answers and for a minute, six times, for others."""

    def __init__(self) -> None:
        hooks: dict[str, list[Any]] = {
            "request": [hf_request_event_hook],
            "response": [_bound_wait],
        }  # Any: theirs
        super().__init__(event_hooks=hooks, follow_redirects=True)

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:  # Any: as those of httpx2
        """Whatever time the request was given, it is no longer than `silence_s`."""
        is_question = request.method in ("GET", "HEAD") or "/paths-info/" in request.url.path
        given, silence = request.extensions.get("timeout", {}), silence_s(is_question=is_question)
        limits = {"connect": CONNECT_S, "read": silence, "write": silence, "pool": silence}
        request.extensions["timeout"] = {
            name: min(limit, silence, given.get(name) or limit) for name, limit in limits.items()
        }
        try:
            return super().send(request, **options)
        except httpx2.TimeoutException as error:
            raise SilenceError(str(error), request=request) from error


def _bound_wait(response: httpx2.Response) -> None:
    told = response.headers.get("Retry-After", "")
    if told.isdigit() and int(told) > MAX_WAIT_S:
        response.headers["Retry-After"] = str(MAX_WAIT_S)
    response.headers.pop("ratelimit", None)  # the same in another header, which comes first
