"""The metadata services of AWS (version 2, with its tokens) and Google Cloud, on loopback, as their documents tell."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class MetadataServer:
    """Fields say what it answers; `asked` is every request that came."""

    def __init__(self) -> None:
        self.instance_action: str | None = None
        self.rebalance: str | None = None
        self.preempted = "FALSE"
        self.maintenance = "NONE"
        self.token = "token-1"
        self.status: int | None = None
        """Answered to everything, when set."""
        self.asked: list[str] = []

    def __enter__(self) -> "MetadataServer":
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                service.asked.append(f"PUT {self.path}")
                is_right = self.path == "/latest/api/token" and "X-aws-ec2-metadata-token-ttl-seconds" in self.headers
                self._answer(200 if is_right else 400, service.token)

            def do_GET(self) -> None:
                service.asked.append(f"GET {self.path}")
                if self.path.startswith("/computeMetadata/v1/instance/"):
                    self._google(self.path.removeprefix("/computeMetadata/v1/instance/"))
                elif self.headers.get("X-aws-ec2-metadata-token") != service.token:
                    self._answer(401, "")
                else:
                    texts = {
                        "/latest/meta-data/spot/instance-action": service.instance_action,
                        "/latest/meta-data/events/recommendations/rebalance": service.rebalance,
                    }
                    text = texts.get(self.path)
                    self._answer(404 if text is None else 200, text or "")

            def _google(self, name: str) -> None:
                texts = {"preempted": service.preempted, "maintenance-event": service.maintenance}
                if self.headers.get("Metadata-Flavor") != "Google":
                    self._answer(403, "")
                else:
                    self._answer(200 if name in texts else 404, texts.get(name, ""), {"Metadata-Flavor": "Google"})

            def _answer(self, status: int, text: str, headers: dict[str, str] | None = None) -> None:
                self.send_response(service.status or status)
                for key, value in (headers or {}).items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *unused: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *unused: object) -> None:
        self._server.shutdown()
        self._server.server_close()
