"""A config behind an https address, read only where the environment allows it and never from a private network."""

import http.client
import ipaddress
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import SplitResult, urljoin, urlsplit

from ftl.errors import ConfigError, Problem
from ftl.yamlfile import MAX_BYTES

PERMISSION = "FTL_ALLOW_CONFIG_URLS"
"""Environment variable: 1 allows https addresses as configs."""
MAX_REDIRECTS = 3
TIMEOUT_S = 30.0

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.I)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_REDIRECTS = (301, 302, 303, 307, 308)


def as_url(path: Path) -> str | None:
    """The address that `path` was before it became a path, or None for a path of this machine."""
    match = _SCHEME.match(str(path))
    return f"{match[1].lower()}://{str(path)[match.end() :]}" if match else None


def file_name(url: str) -> str:
    """What a file from `url` would be called in the working directory."""
    return PurePosixPath(urlsplit(url).path).name or "config.yml"


def shown(url: str) -> str:
    """`url` as messages may show it: its query and its user may hold a secret."""
    return re.sub(r"//[^/]*@", "//", url.partition("?")[0])


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the open internet, also inside the wrappings IPv6 has for IPv4."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip in _NAT64 or ip.sixtofour or ip.teredo:
            return False
        ip = ip.ipv4_mapped or ip
    return ip.is_global and not ip.is_multicast


def fetch(
    url: str,
    *,
    is_allowed: Callable[[str], bool] = is_public,
    trust: ssl.SSLContext | None = None,
    timeout_s: float = TIMEOUT_S,
) -> bytes:
    """What stands at `url`, at most 1 MiB. Blocks for `timeout_s` at most, the name's resolution apart.

    Each host, that of a redirect too, is resolved once, all its addresses must be allowed, and the connection goes
    to one of them: a name that changes its mind in between gains nothing. Proxies are not used. Raises ConfigError.
    """
    name = shown(url)
    if os.environ.get(PERMISSION) != "1":
        remedy = f"download it first, or set {PERMISSION}=1 to allow https addresses"
        raise ConfigError(Problem(name, "configs are not read from the network by default", remedy=remedy))
    deadline = time.monotonic() + timeout_s
    context = trust or ssl.create_default_context()
    at, base = url, ""
    for _ in range(MAX_REDIRECTS + 1):
        parts = _checked(at, base, name)
        at = parts.geturl()
        answer, body = _get(parts, _addresses(parts, name, is_allowed), context, deadline, name)
        if answer.status == 200:
            return body
        location = answer.getheader("Location")
        if answer.status not in _REDIRECTS or not location:
            raise ConfigError(Problem(name, f"the server answered {answer.status}"))
        at, base = location, at
    raise ConfigError(Problem(name, f"more than {MAX_REDIRECTS} redirects"))


def _checked(link: str, base: str, name: str) -> SplitResult:
    """Where `link`, found at `base`, leads. Raises ConfigError for what is no plain https address."""
    try:
        at = urljoin(base, link)
        parts = urlsplit(at)
        has_port = parts.port is None or parts.port > 0
    except ValueError as e:
        raise ConfigError(Problem(name, f"not an address: {e}")) from e
    if parts.scheme != "https":
        raise ConfigError(Problem(name, f"only https addresses are read, and this is or leads to {parts.scheme}:"))
    if not parts.hostname or not has_port or not at.isascii() or not at.isprintable() or " " in at:
        raise ConfigError(Problem(name, "not a plain https address"))
    if parts.username is not None:
        raise ConfigError(Problem(name, "a password does not belong in an address"))
    return parts


def _addresses(parts: SplitResult, name: str, is_allowed: Callable[[str], bool]) -> list[str]:
    host = str(parts.hostname)
    try:
        found = socket.getaddrinfo(host, parts.port or 443, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as e:
        raise ConfigError(Problem(name, f"the host {host} is not known")) from e
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if private := [address for address in addresses if not is_allowed(address)]:
        raise ConfigError(Problem(name, f"{host} is {private[0]}, in a private network", remedy="download it first"))
    return addresses


def _get(
    parts: SplitResult, addresses: list[str], context: ssl.SSLContext, deadline: float, name: str
) -> tuple[http.client.HTTPResponse, bytes]:
    """The answer and, if it is the file, its bytes. A watchdog ends the connection when the time is over."""
    host, port = str(parts.hostname), parts.port or 443
    connection = http.client.HTTPSConnection(host, port, context=context)
    watchdog: threading.Timer | None = None
    try:
        raw = _connect(addresses, port, deadline)
        tls = context.wrap_socket(raw, server_hostname=host, do_handshake_on_connect=False)
        connection.sock = tls  # http.client then makes no connection of its own
        watchdog = threading.Timer(max(0.0, deadline - time.monotonic()), _end, [tls])
        watchdog.start()
        tls.do_handshake()
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", path, headers={"Accept-Encoding": "identity", "User-Agent": "ftl"})
        answer = connection.getresponse()
        body = answer.read(MAX_BYTES + 1) if answer.status == 200 else b""
    except (OSError, http.client.HTTPException) as e:
        told = "took longer than allowed" if time.monotonic() >= deadline else f"cannot be read: {e}"
        raise ConfigError(Problem(name, told)) from e
    finally:
        if watchdog:
            watchdog.cancel()
        connection.close()
    if time.monotonic() >= deadline:
        raise ConfigError(Problem(name, "took longer than allowed"))  # the watchdog may have cut the file short
    if len(body) > MAX_BYTES:
        raise ConfigError(Problem(name, "larger than 1 MiB", "a config is a few kilobytes"))
    return answer, body


def _connect(addresses: list[str], port: int, deadline: float) -> socket.socket:
    """A connection to the first address that answers."""
    failure: OSError = TimeoutError("no time left")
    for address in addresses:
        left = deadline - time.monotonic()
        if left <= 0:
            break
        try:
            return socket.create_connection((address, port), timeout=left)
        except OSError as e:
            failure = e
    raise failure


def _end(tls: ssl.SSLSocket) -> None:
    """Wake whoever reads. The plain socket's own call: that of TLS would forget its state under the reader's hands."""
    try:
        socket.socket.shutdown(tls, socket.SHUT_RDWR)
    except OSError:
        return  # closed already
