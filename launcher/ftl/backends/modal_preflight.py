"""What can be known before Modal makes anything: all of it within six seconds, also when no server answers.

Modal's client waits a minute for a dead server, so it is knocked at first, and asked in a thread that nobody waits for
longer than a few seconds.
"""

import json
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ftl.backends.modal_plan import CACHE_MOUNT, STATE_MOUNT, ModalPlan
from ftl.backends.modal_volume import NO_SDK, no_access
from ftl.contract import JobSpec
from ftl.errors import Problem

_NETWORK_S, _KNOCK_S, _REGISTRY_S = 4.0, 1.5, 2.0
_MANIFESTS = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)


def problems(spec: JobSpec, plan: ModalPlan) -> list[Problem]:
    """Everything that would stop the job. Makes nothing."""
    found = [
        Problem(f"secret {name}", "not set in this shell", None, f"`export {name}=...`")
        for name in spec.secrets
        if name not in os.environ
    ]
    found += [
        Problem(f"mount {mount.name}", mount.source, "is not there")
        for mount in spec.mounts
        if not Path(mount.source).exists()
    ]
    if find_spec("modal") is None:
        return [*found, NO_SDK]
    server = _server()  # imports the client, which takes a second or more
    give_up = time.monotonic() + _NETWORK_S
    if not _has_token():
        return [*found, no_access("there is no token")]
    image = _InTime(lambda: image_problems(plan))
    unreachable = None if _answers(server) else _silent(server)
    if unreachable is not None:
        return [*found, unreachable]
    asked = _InTime(lambda: _server_problems(plan))
    told = asked.result(give_up)
    found += [_silent(server)] if told is None else told
    return [*found, *(image.result(give_up) or [])]


class _InTime:
    """A function in a thread that is not waited for beyond a limit."""

    def __init__(self, ask: Callable[[], list[Problem]]) -> None:
        self._told: list[Problem] | None = None
        self._ask = ask
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._told = self._ask()
        except Exception as error:  # whatever the client raises is one more reason not to start
            self._told = [Problem("Modal", str(error).partition("\n")[0] or type(error).__name__)]

    def result(self, until: float) -> list[Problem] | None:
        """What it gave; None where it takes longer than until then (time.monotonic())."""
        self._thread.join(max(0.0, until - time.monotonic()))
        return self._told


def _server() -> str:
    import modal  # noqa: F401  # all of it, so that what follows is the network's time
    from modal.config import config

    return str(config.get("server_url"))


def _has_token() -> bool:
    from modal.config import config

    return bool(config.get("token_id") and config.get("token_secret"))


def _silent(server: str) -> Problem:
    return Problem("Modal", server, "does not answer", "look at status.modal.com, your network and MODAL_SERVER_URL")


def _answers(servers: str) -> bool:
    """Whether one of the servers takes a connection."""
    for server in servers.split(","):
        where = urlsplit(server.strip())
        try:
            if where.scheme == "unix":
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.settimeout(_KNOCK_S)
                    connection.connect(where.path)
            else:
                port = where.port or (443 if where.scheme == "https" else 80)
                socket.create_connection((where.hostname or "", port), timeout=_KNOCK_S).close()
        except (OSError, ValueError):
            continue
        return True
    return False


def _server_problems(plan: ModalPlan) -> list[Problem]:
    """What the server says to token, environment, secrets and volumes."""
    import modal

    try:
        modal.Client.from_env().hello()
    except modal.exception.AuthError as error:
        return [no_access(str(error).partition("\n")[0].rstrip("."))]
    except modal.exception.Error as error:
        return [Problem("Modal", str(error).partition("\n")[0].rstrip("."))]
    found = _environment_problems(plan)
    if found:
        return found
    for secret in plan.secrets:
        if secret.name is not None:
            found += _secret_problems(plan, secret.name, secret.keys)
    for mount in (STATE_MOUNT, CACHE_MOUNT):
        found += _volume_problems(plan, plan.volumes[mount])
    if plan.image.registry_secret is not None:
        found += _secret_problems(plan, plan.image.registry_secret, ())
    return found


def _environment_problems(plan: ModalPlan) -> list[Problem]:
    import modal

    if plan.environment is None:
        return []
    try:
        modal.Environment.from_name(plan.environment).hydrate()
    except modal.exception.NotFoundError:
        remedy = f"`modal environment create {plan.environment}`, or remove it"
        return [Problem("environment", plan.environment, "is not there on Modal", remedy)]
    return []


def _secret_problems(plan: ModalPlan, name: str, keys: tuple[str, ...]) -> list[Problem]:
    import modal

    try:
        secret = modal.Secret.from_name(name, environment_name=plan.environment, required_keys=list(keys))
        secret.hydrate()
    except modal.exception.NotFoundError as error:
        wanted = " ".join(f"{key}=..." for key in keys) or "KEY=..."
        text = str(error).lower()
        if any(key.lower() in text for key in keys):
            told = f"has not all of {', '.join(keys)}"
            return [Problem("modal_secrets", name, told, "add what is missing on modal.com, or mend `keys`")]
        return [Problem("modal_secrets", name, "is not there on Modal", f"`modal secret create {name} {wanted}`")]
    except modal.exception.InvalidError:
        told = f"has not all of {', '.join(keys)}"
        return [Problem("modal_secrets", name, told, "add what is missing on modal.com, or mend `keys`")]
    return []


def _volume_problems(plan: ModalPlan, name: str) -> list[Problem]:
    """Whether a volume of ours is of the wrong version; one that is not there yet is made."""
    import modal

    try:
        modal.Volume.from_name(name, environment_name=plan.environment, version=2).hydrate()
    except modal.exception.NotFoundError:
        return []
    except modal.exception.InvalidError:
        key = "volume" if name == plan.volumes[STATE_MOUNT] else "cache_volume"
        remedy = f"give `{key}` another name, or remove that volume: `modal volume delete {name}`"
        return [Problem(key, name, "is a volume of version 1 on Modal, and ftl needs version 2", remedy)]
    return []


# --- the image's registry -----------------------------------------------------------------------------------------


def image_problems(plan: ModalPlan) -> list[Problem]:
    """Whether the registry says that it has no such image. A registry that cannot be asked from here says nothing."""
    repository, _, digest = plan.image.base.partition("@")
    host, _, path = repository.partition("/")
    if not path or ("." not in host and ":" not in host and host != "localhost"):
        host, path = "registry-1.docker.io", repository if "/" in repository else f"library/{repository}"
    folder, slash, last = path.rpartition("/")
    path = f"{folder}{slash}{last.partition(':')[0]}"
    scheme = "http" if host.startswith(("localhost", "127.0.0.1")) else "https"
    status = _status(f"{scheme}://{host}/v2/{path}/manifests/{digest}")
    if status == 404:
        return [Problem("image", plan.image.base, f"{host} has no such image", "mend the digest")]
    if status in (401, 403) and plan.image.registry_secret is None:
        remedy = "name a secret on Modal with REGISTRY_USERNAME and REGISTRY_PASSWORD as `registry_secret`"
        return [Problem("image", plan.image.base, f"{host} shows it to those who log in alone", remedy)]
    return []


def _status(url: str) -> int | None:
    """The answer's status, with a visitor's token where one is asked for; None without an answer."""
    status, challenge = _head(url, None)
    if status != 401 or not challenge.lower().startswith("bearer "):
        return status
    fields = dict(part.split("=", 1) for part in challenge[7:].replace('"', "").split(",") if "=" in part)
    realm = fields.pop("realm", "")
    query = "&".join(f"{key}={value}" for key, value in fields.items() if key in ("service", "scope"))
    try:
        with urllib.request.urlopen(f"{realm}?{query}", timeout=_REGISTRY_S) as answer:
            told: Any = json.load(answer)
    except (OSError, ValueError, HTTPException):
        return None
    return _head(url, told.get("token") or told.get("access_token"))[0]


def _head(url: str, token: str | None) -> tuple[int | None, str]:
    request = urllib.request.Request(url, method="HEAD", headers={"Accept": _MANIFESTS})
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=_REGISTRY_S) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        return error.code, error.headers.get("WWW-Authenticate", "")
    except (OSError, ValueError, HTTPException):
        return None, ""
