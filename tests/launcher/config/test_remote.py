import http.server
import shutil
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import pytest

from ftl.config.load import load_train
from ftl.config.remote import PERMISSION, as_url, fetch, file_name, is_public
from ftl.errors import ConfigError

CONFIG = b"base_model: ./model\nlearning_rate: 1e-4\ndatasets: [{path: a.jsonl, type: alpaca}]\n"


class Answers(http.server.BaseHTTPRequestHandler):
    """A server of configs: some good, most of them traps."""

    def do_GET(self):
        match self.path:
            case "/cfg.yml" | "/dir/a%20b.yml?raw=1":
                self._send(200, CONFIG)
            case "/moved":
                self._send(302, b"", "/cfg.yml")
            case "/loop":
                self._send(302, b"", "/loop")
            case "/to-http":
                self._send(301, b"", "http://localhost/cfg.yml")
            case "/to-private":
                self._send(307, b"", "https://169.254.169.254/latest/meta-data")
            case "/nowhere":
                self._send(302, b"")
            case "/to-nonsense":
                self._send(302, b"", "https://[::1")
            case "/big":
                self._send(200, b"#" * (2**20 + 1))
            case "/slow":
                self.send_response(200)
                self.end_headers()
                for _ in range(100):
                    self.wfile.write(b"#")
                    self.wfile.flush()
                    time.sleep(0.1)
            case _:
                self._send(404, b"")

    def _send(self, status, body, location=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class QuietServer(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_):
        pass  # a client that turns away is what is tested


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    if not shutil.which("openssl"):
        pytest.skip("openssl makes the certificate of the test server")
    pem = tmp_path_factory.mktemp("tls") / "server.pem"
    names = "subjectAltName=DNS:localhost,DNS:config.test,IP:127.0.0.1"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(pem), "-out", str(pem.with_suffix(".crt")), "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-addext", names], check=True, capture_output=True)
    pem.write_text(pem.read_text() + pem.with_suffix(".crt").read_text())
    return pem


@pytest.fixture(scope="module")
def server(certificate):
    """The port of a server that speaks TLS on the loopback."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    httpd = QuietServer(("127.0.0.1", 0), Answers)
    httpd.socket = context.wrap_socket(httpd.socket, server_side=True)
    thread = threading.Thread(target=httpd.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield httpd.server_address[1]
    httpd.shutdown()
    httpd.server_close()


@pytest.fixture
def get(server, certificate, monkeypatch):
    """Fetch a path of the server, whose certificate is trusted and whose address counts as public."""
    monkeypatch.setenv(PERMISSION, "1")
    trust = ssl.create_default_context(cafile=str(certificate.with_suffix(".crt")))

    def get(path: str, host: str = "localhost", timeout_s: float = 10, **more) -> bytes:
        given = {"is_allowed": lambda address: address in ("127.0.0.1", "::1"), "trust": trust} | more
        return fetch(f"https://{host}:{server}{path}", timeout_s=timeout_s, **given)

    return get


def refusal(call, *args, **kwargs) -> str:
    with pytest.raises(ConfigError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


def test_fetch_gives_the_file(get):
    assert get("/cfg.yml") == CONFIG


def test_fetch_keeps_the_query_and_what_is_escaped(get):
    assert get("/dir/a%20b.yml?raw=1") == CONFIG


def test_fetch_follows_a_redirect(get):
    assert get("/moved") == CONFIG


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/loop", "more than 3 redirects"),
        ("/to-http", "only https addresses are read, and this is or leads to http:"),
        ("/to-private", "169.254.169.254 is 169.254.169.254, in a private network; download it first"),
        ("/to-nonsense", "not an address: Invalid IPv6 URL"),
        ("/nowhere", "the server answered 302"),
        ("/missing", "the server answered 404"),
        ("/big", "larger than 1 MiB: a config is a few kilobytes"),
    ],
)
def test_fetch_refuses_with_the_reason(get, path, told):
    assert refusal(get, path).endswith(told)


def test_fetch_of_a_private_address_makes_no_connection(get, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("connected"))
    assert "localhost is 127.0.0.1, in a private network" in refusal(get, "/cfg.yml", is_allowed=is_public)


def test_fetch_of_a_slow_server_ends_in_time(get):
    before = time.monotonic()
    assert "took longer than allowed" in refusal(get, "/slow", timeout_s=0.6)
    assert time.monotonic() - before < 5


def test_fetch_of_an_untrusted_server_is_refused(get):
    assert "certificate" in refusal(get, "/cfg.yml", trust=ssl.create_default_context())


def test_fetch_connects_to_the_address_that_was_checked(get, monkeypatch):
    """A name server that answers a public address first and a private one later gains nothing."""
    real = socket.getaddrinfo
    asked = []

    def answer(host, port, *args, **kwargs):
        if host != "config.test":
            return real(host, port, *args, **kwargs)
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "10.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    assert get("/cfg.yml", host="config.test") == CONFIG
    assert asked == ["config.test"]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://localhost/cfg.yml", "only https addresses are read"),
        ("file:///etc/passwd", "only https addresses are read"),
        ("https:///cfg.yml", "not a plain https address"),
        ("https://localhost:x/", "not an address"),
        ("https://localhost/a b", "not a plain https address"),
        ("https://localhost/\r\nHost: x", "not a plain https address"),
        ("https://me:secret@localhost/", "a password does not belong in an address"),
        ("http://me:secret@localhost/?token=secret", "only https addresses are read"),
        ("https://no-such-host.invalid/", "the host no-such-host.invalid is not known"),
        ("https://[::1/", "not an address"),
    ],
)
def test_fetch_reads_plain_https_addresses_alone(monkeypatch, url, told):
    monkeypatch.setenv(PERMISSION, "1")
    sentence = refusal(fetch, url)
    assert told in sentence
    assert "secret" not in sentence


@pytest.mark.parametrize("value", [None, "", "0", "yes"])
def test_fetch_needs_permission(monkeypatch, value):
    monkeypatch.delenv(PERMISSION, raising=False)
    if value is not None:
        monkeypatch.setenv(PERMISSION, value)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("asked a name server"))
    assert "set FTL_ALLOW_CONFIG_URLS=1 to allow https addresses" in refusal(fetch, "https://example.com/cfg.yml")


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    ],
)
def test_private_addresses_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "140.82.121.3", "2606:4700:4700::1111"])
def test_addresses_of_the_internet_are_public(address):
    assert is_public(address)


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("https://example.com/a/cfg.yml", "https://example.com/a/cfg.yml"),
        ("HTTPS://example.com/cfg.yml?raw=1", "https://example.com/cfg.yml?raw=1"),
        ("configs/cfg.yml", None),
        ("/abs/cfg.yml", None),
        ("C:/cfg.yml", None),
    ],
)
def test_as_url_knows_an_address_that_became_a_path(path, url):
    assert as_url(Path(path)) == url


@pytest.mark.parametrize(("url", "name"), [("https://h/a/cfg.yml?x=1", "cfg.yml"), ("https://h", "config.yml")])
def test_file_name_is_the_last_part(url, name):
    assert file_name(url) == name


def test_config_from_an_address_is_loaded_as_if_it_lay_here(monkeypatch):
    monkeypatch.setattr("ftl.config.remote.fetch", lambda url: CONFIG + b"lora_r: 0\nadapter: lora\n")
    with pytest.raises(ConfigError) as caught:
        load_train(Path("https://example.com/my/cfg.yml"))
    assert str(caught.value) == "https://example.com/my/cfg.yml:4: lora_r = 0: must be at least 1"
    monkeypatch.setattr("ftl.config.remote.fetch", lambda url: CONFIG)
    assert load_train(Path("https://example.com/my/cfg.yml")).path == Path("cfg.yml")


def test_config_from_an_address_has_no_code_run_unless_the_user_says_so(monkeypatch):
    monkeypatch.setattr("ftl.config.remote.fetch", lambda url: CONFIG + b"trust_remote_code: true\n")
    with pytest.raises(ConfigError) as caught:
        load_train(Path("https://example.com/my/cfg.yml"))
    told = "cfg.yml:4: trust_remote_code: a config from the network may not have code run; read the code of base_model"
    assert told in str(caught.value)
    loaded = load_train(Path("https://example.com/my/cfg.yml"), [("trust_remote_code", "true")])
    assert loaded.config.model.trust_remote_code
