"""A proxy on loopback for this process alone, which has each byte that goes out pay before it goes.

What is encrypted stays so: it passes CONNECT on, and plain HTTP, one request a connection. Where the environment names
a proxy already, that one is asked in turn, but for the hosts that it is not meant for.
"""

import base64
import contextlib
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from urllib.parse import unquote, urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

from ftl.errors import ConfigError, Problem

_MAX_HEAD = 1 << 16
_CONNECT_S = 10.0
_BUSY_S = 0.1
_RECEIVE_BYTES = 1 << 17
"""Of a client's connection: what waits here to be paid for looks sent to the client."""
_HOP = re.compile(rb"(?im)^(proxy-[\w-]+|connection|keep-alive):[^\n]*\n")
_HEAD = re.compile(r"(\w+) (\S+) HTTP/1\.[01]")


class UploadProxy(threading.Thread):
    """Serves at `url` for as long as the process lives. `pay` is called with a number of bytes before they are sent."""

    def __init__(self, pay: Callable[[int], None], piece: int, env: Mapping[str, str]) -> None:
        super().__init__(name="upload proxy", daemon=True)
        self._pay, self._piece = pay, piece
        self._others = _proxies_of(env)
        token = secrets.token_urlsafe(16)  # other users of this machine must not send by the proxy that we ask in turn
        self._password = b"Basic " + base64.b64encode(f"ftl:{token}".encode())
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self.url = f"http://ftl:{token}@127.0.0.1:{self._listener.getsockname()[1]}"

    def run(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # no file descriptor is free: the next try of the client may find one
                time.sleep(_BUSY_S)
                continue
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), client:
            head, rest = _read_head(client)
            if self._password not in head:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
            try:
                server, first, answer = self._connected(head)
            except OSError:
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            with server:
                client.sendall(answer)
                back = threading.Thread(target=_pass_back, args=(server, client), daemon=True)
                back.start()
                self._pass_on(client, server, first + rest)
                back.join()

    def _connected(self, head: bytes) -> tuple[socket.socket, bytes, bytes]:
        """A connection to where the request goes, what to send there first, and what to tell the client first."""
        line, _, headers = head.partition(b"\r\n")
        if (match := _HEAD.fullmatch(line.decode("latin-1"))) is None:
            raise ValueError("no request")
        method, address = match.groups()
        is_tunnel = method == "CONNECT"
        target = urlsplit(f"//{address}" if is_tunnel else address)
        if target.hostname is None:
            raise ValueError("no host")
        port = target.port or 80
        headers = _HOP.sub(b"", headers)
        if not is_tunnel:
            headers = b"Connection: close\r\n" + headers
        if other := self._other_for("https" if is_tunnel else "http", f"{target.hostname}:{port}"):
            host, other_port, password = other
            server = socket.create_connection((host, other_port), _CONNECT_S)
            first = line + b"\r\n" + password + headers
            answer = b""  # that of the other proxy
        else:
            server = socket.create_connection((target.hostname, port), _CONNECT_S)
            path = target._replace(scheme="", netloc="").geturl() or "/"
            first = b"" if is_tunnel else f"{method} {path} HTTP/1.1\r\n".encode("latin-1") + headers
            answer = b"HTTP/1.1 200 Connection established\r\n\r\n" if is_tunnel else b""
        server.settimeout(None)
        return server, first, answer

    def _other_for(self, scheme: str, place: str) -> tuple[str, int, bytes] | None:
        """The proxy that is to be asked in turn: host, port, and its line of headers."""
        url = self._others.get(scheme)
        if url is None or proxy_bypass_environment(place, self._others):
            return None
        parts = urlsplit(url if "//" in url else f"//{url}")
        line = b""
        if parts.username is not None:
            user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            line = b"Proxy-Authorization: Basic " + base64.b64encode(user.encode()) + b"\r\n"
        return str(parts.hostname), parts.port or 80, line

    def _pass_on(self, client: socket.socket, server: socket.socket, waiting: bytes) -> None:
        """What the client sends, as fast as may be. When it ends, so does all."""
        with contextlib.suppress(OSError):
            for start in range(0, len(waiting), self._piece):
                self._send(server, waiting[start : start + self._piece])
            while piece := client.recv(self._piece):
                self._send(server, piece)
        _end(server)

    def _send(self, server: socket.socket, piece: bytes) -> None:
        self._pay(len(piece))
        server.sendall(piece)


def _pass_back(server: socket.socket, client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while answer := server.recv(1 << 16):
            client.sendall(answer)
    _end(client)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _read_head(client: socket.socket) -> tuple[bytes, bytes]:
    """The first line and the headers of a request, with the empty line; and what came with them."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(1 << 14)
        if not piece or len(data) > _MAX_HEAD:
            raise ValueError("no request")
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def _proxies_of(env: Mapping[str, str]) -> dict[str, str]:
    """Scheme -> proxy, and `no` -> the hosts without one, as clients read them from an environment.

    Raises ConfigError for one that is not asked over HTTP.
    """
    found = {}
    for scheme in ("http", "https", "no"):
        value = env.get(f"{scheme}_proxy") or env.get(f"{scheme}_proxy".upper()) or ""
        value = value or (env.get("all_proxy") or env.get("ALL_PROXY") or "" if scheme != "no" else "")
        if scheme != "no" and "://" in value and not value.startswith("http://"):
            given = f"the proxy of the environment is asked by {value.partition(':')[0]}, not by http"
            raise ConfigError(Problem("max_upload_mb_per_s", given, None, "without that proxy the rate can be kept"))
        if value:
            found[scheme] = value
    return found
