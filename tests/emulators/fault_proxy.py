"""A proxy before a server that makes no faults of its own (moto, gcp-storage-emulator), which makes them."""

from http.client import HTTPConnection
from typing import ClassVar
from urllib.parse import urlsplit

from faulty_server import FaultyServer
from hub_handler import HubHandler

_OF_THE_CONNECTION = ("connection", "date", "keep-alive", "server", "transfer-encoding")


class ProxyHandler(HubHandler):
    upstream: ClassVar[str]

    def do_DELETE(self) -> None:
        self._serve()

    def _route(self, path: str) -> None:
        connection = HTTPConnection(self.upstream, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() != "transfer-encoding"}
        connection.request(self.command, self.path, self.body, headers)
        got = connection.getresponse()
        content = got.read()
        connection.close()
        kept = {name: value for name, value in got.getheaders() if name.lower() not in _OF_THE_CONNECTION}
        if self.command != "HEAD":
            kept = {name: value for name, value in kept.items() if name.lower() != "content-length"}
        self.answer(got.status, content, kept)


class FaultProxy(FaultyServer):
    """Serves at `url` what the server at `upstream` serves."""

    def __init__(self, upstream: str) -> None:
        super().__init__(ProxyHandler, {"hub": self, "upstream": urlsplit(upstream).netloc})
