"""Notices of AWS and Google Cloud that they take this machine back, read from the metadata service of the machine.

Only on such a machine, or where FTL_NOTICES says aws or gcp (off: never); nothing is asked anywhere else. Imported by
the supervisor, so it must stay light.
"""

import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

KIND_VARIABLE = "FTL_NOTICES"
ENDPOINT_VARIABLE = "FTL_NOTICES_ENDPOINT"
"""Where the metadata service is; for tests."""
_AWS_ENDPOINT = "http://169.254.169.254"
_GCP_ENDPOINT = "http://169.254.169.254"  # of metadata.google.internal, without a question to a name server
_TIMEOUT_S = 1.5
_FAILURES_TOLD = 3
_DMI = Path("/sys/class/dmi/id")

Warn = Callable[[str], None]


@dataclass(frozen=True)
class Notice:
    sentence: str
    """Who takes the machine, and when."""
    until: float | None = None
    """Until when the machine lives (time.time()), where the provider says."""


class Service(Protocol):
    """The metadata service of one provider."""

    label: str
    poll_s: float

    def look(self) -> tuple[Notice | None, str | None]:
        """A notice, and else a warning worth one line. Raises OSError and HTTPException when it does not answer."""
        ...


class Aws:
    """A spot instance: the notice comes two minutes ahead. A rebalance recommendation may be followed by none, and
    starting anew on the same machine would meet it again: it is a warning."""

    label = "AWS"
    poll_s = 5.0

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._token = ""

    def look(self) -> tuple[Notice | None, str | None]:
        action = self._get("/latest/meta-data/spot/instance-action")
        if action is not None:
            return _of_spot(action), None
        if self._get("/latest/meta-data/events/recommendations/rebalance") is not None:
            return None, "AWS says that it may soon take this spot machine back; training goes on until it does"
        return None, None

    def _get(self, path: str) -> str | None:
        """The text there; None for 404, which means that there is no such notice."""
        for _ in range(2):
            if not self._token:
                lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}
                status, self._token, _ = _ask(self._endpoint, "PUT", "/latest/api/token", lifetime)
                if status != 200:
                    self._token = ""
                    raise OSError(f"no token: status {status}")
            status, text, _ = _ask(self._endpoint, "GET", path, {"X-aws-ec2-metadata-token": self._token})
            if status != 401:
                break
            self._token = ""  # it has run out
        if status not in (200, 404):
            raise OSError(f"status {status}")
        return text if status == 200 else None


class Gcp:
    """A preempted machine has about 30 s; one that is ended for maintenance longer."""

    label = "Google Cloud"
    poll_s = 2.0
    _PREEMPTED_S = 30.0

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint

    def look(self) -> tuple[Notice | None, str | None]:
        if self._get("preempted") == "TRUE":
            return Notice("Google Cloud takes this spot machine back", time.time() + self._PREEMPTED_S), None
        if self._get("maintenance-event").startswith("TERMINATE"):  # MIGRATE: the machine lives on elsewhere
            return Notice("Google Cloud ends this machine for maintenance"), None
        return None, None

    def _get(self, name: str) -> str:
        path = f"/computeMetadata/v1/instance/{name}"
        status, text, headers = _ask(self._endpoint, "GET", path, {"Metadata-Flavor": "Google"})
        if status != 200 or headers.get("Metadata-Flavor") != "Google":
            raise OSError(f"status {status}")
        return text.strip()


class NoticeWatch:
    """Asks in a thread of its own until there is a notice."""

    def __init__(self, service: Service | None, warn: Warn) -> None:
        self._service, self._warn = service, warn
        self._notice: Notice | None = None
        if service is not None:
            threading.Thread(target=self._watch, args=(service,), name="notices", daemon=True).start()

    @property
    def notice(self) -> Notice | None:
        return self._notice

    def _watch(self, service: Service) -> None:
        num_failures = 0
        told: set[str] = set()
        while self._notice is None:
            try:
                self._notice, warning = service.look()
                num_failures = 0
            except (OSError, http.client.HTTPException, ValueError) as error:
                num_failures += 1
                warning = None
                if num_failures == _FAILURES_TOLD:
                    warning = (
                        f"the metadata service of {service.label} does not answer ({error}): if it takes this machine "
                        f"back, training does not see it coming; in a container AWS needs a hop limit of 2"
                    )
            if warning is not None and warning not in told:
                told.add(warning)
                self._warn(warning)
            time.sleep(service.poll_s)


def service_of(env: Mapping[str, str], dmi: Path = _DMI) -> Service | None:
    """That of the provider this machine belongs to, as `env` or its firmware says; None elsewhere."""
    kind = env.get(KIND_VARIABLE) or _kind_of_machine(dmi)
    endpoint = env.get(ENDPOINT_VARIABLE)
    if kind == "aws":
        return Aws(endpoint or _AWS_ENDPOINT)
    if kind == "gcp":
        return Gcp(endpoint or _GCP_ENDPOINT)
    return None


def _kind_of_machine(dmi: Path) -> str | None:
    if "Amazon EC2" in (_first_line(dmi / "sys_vendor"), _first_line(dmi / "bios_vendor")):
        return "aws"
    if _first_line(dmi / "product_name") == "Google Compute Engine":  # other machines have the vendor Google, too
        return "gcp"
    return None


def _first_line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _of_spot(text: str) -> Notice:
    """A notice whose details cannot be read is one all the same."""
    try:
        record = json.loads(text)
        at = str(record["time"])
        until = datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp()
        return Notice(f"AWS takes this spot machine back ({record['action']} at {at})", until)
    except (ValueError, KeyError, TypeError):
        return Notice("AWS takes this spot machine back")


def _ask(endpoint: str, method: str, path: str, headers: dict[str, str]) -> tuple[int, str, http.client.HTTPMessage]:
    """Status, text and headers; past any proxy."""
    where = urlsplit(endpoint)
    connection = http.client.HTTPConnection(where.hostname or "", where.port or 80, timeout=_TIMEOUT_S)
    try:
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(65536).decode(errors="replace"), answer.headers
    finally:
        connection.close()
