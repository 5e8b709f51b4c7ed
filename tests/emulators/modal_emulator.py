"""The emulated Modal as a test uses it: starts modal_control_plane.py as a process, and asks and tells it things.

with ModalEmulator.start(directory) as modal:
    os.environ.update(modal.client_env(directory))
    ...
    modal.preempt(modal.wait_for_container(call_id))
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("modal_control_plane.py")
TOKEN_ID, TOKEN_SECRET = "ak-emulated", "as-emulated"

Json = Any  # Any: whatever the control API answers


@dataclass
class ModalEmulator:
    server_url: str
    control_url: str
    process: "subprocess.Popen[bytes]"
    log: Path
    """Everything the emulator itself has to say; empty unless something went wrong in it."""

    @classmethod
    @contextlib.contextmanager
    def start(
        cls, directory: Path, *, env: Mapping[str, str] | None = None, sites: tuple[Path, ...] = ()
    ) -> "Iterator[ModalEmulator]":
        """`env`: of every container. `sites`: on every container's PYTHONPATH."""
        directory.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(SCRIPT), "--until-eof", "--directory", str(directory / "kept")]
        command += ["--token", f"{TOKEN_ID}:{TOKEN_SECRET}"]
        command += [word for k, v in (env or {}).items() for word in ("--env", f"{k}={v}")]
        command += [word for site in sites for word in ("--site", str(site))]
        log = directory / "emulator.log"
        own = {k: v for k, v in os.environ.items() if not k.startswith(("MODAL_", "PYTEST_"))}
        with log.open("wb") as err:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=err, env=own, start_new_session=True, stdin=subprocess.PIPE
            )
        assert process.stdout is not None
        first = process.stdout.readline()
        if not first:
            raise RuntimeError(f"the emulator of Modal did not start:\n{log.read_text()}")
        address = json.loads(first)
        emulator = cls(address["server_url"], address["control_url"], process, log)
        try:
            yield emulator
        finally:
            emulator.stop()

    def stop(self) -> None:
        """Ends all containers too."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def client_env(self, directory: Path) -> dict[str, str]:
        """What the modal client is to be started with, and nothing of the developer's own account."""
        return {
            "MODAL_SERVER_URL": self.server_url,
            "MODAL_TOKEN_ID": TOKEN_ID,
            "MODAL_TOKEN_SECRET": TOKEN_SECRET,
            "MODAL_CONFIG_PATH": str(directory / "no-modal.toml"),
            "MODAL_IMAGE_BUILDER_VERSION": "2025.06",
        }

    # What there is.

    @property
    def state(self) -> Json:
        return self._ask("GET", "/state")

    @property
    def counts(self) -> dict[str, int]:
        """Calls so far, by method."""
        counts: dict[str, int] = self._ask("GET", "/rpcs")["counts"]
        return counts

    @property
    def calls_by_clients(self) -> list[str]:
        """The methods that clients, not containers, have called, in order."""
        found: list[str] = self._ask("GET", "/rpcs")["by_clients"]
        return found

    @property
    def unknown(self) -> dict[str, int]:
        found: dict[str, int] = self._ask("GET", "/rpcs")["unknown"]
        return found

    def requests(self, rpc: str) -> list[Json]:
        """What was sent to a method, as JSON with the names of the protocol."""
        found: list[Json] = self._ask("GET", f"/requests/{rpc}")
        return found

    def function(self, name: str) -> Json:
        """The last FunctionCreate of that name."""
        for request in reversed(self.requests("FunctionCreate")):
            data = request.get("function") or request["function_data"]
            if data["function_name"] == name:
                return request
        raise AssertionError(f"no function {name} was created")

    def log_text(self, call_id: str | None = None) -> str:
        lines = self._ask("GET", "/logs")
        return "".join(line["text"] for line in lines if call_id in (None, line["call_id"]))

    def volume(self, name: str) -> Json:
        return self._ask("GET", f"/volumes/{name}")

    def committed(self, volume: str) -> dict[str, bytes]:
        """The files of a volume as anybody else would find them."""
        tree = self.volume(volume)["tree"]
        return {
            path: self._fetch("GET", f"/volumes/{volume}/files/{urllib.request.quote(path)}")  # type: ignore[attr-defined]
            for path, entry in tree.items()
            if entry["kind"] == 1
        }

    def call(self, call_id: str) -> Json:
        return self.state["calls"][call_id]

    def input(self, call_id: str) -> Json:
        """The only one of a call."""
        (input,) = self.call(call_id)["inputs"]
        return input

    def ends(self, call_id: str) -> list[str]:
        """How each attempt of a call's only input ended."""
        return [attempt["end"] for attempt in self.input(call_id)["attempts"]]

    def fsck(self) -> list[str]:
        found: list[str] = self._ask("GET", "/fsck")
        return found

    # What a test waits for.

    def wait_until(self, is_so: Callable[[Json], Any], what: str, timeout_s: float = 30.0) -> Any:
        """What `is_so(state)` gives once it is true."""
        deadline = time.monotonic() + timeout_s
        while not (found := is_so(self.state)):
            if time.monotonic() > deadline:
                raise AssertionError(f"{what}: not within {timeout_s} s; log:\n{self.log_text()}{self.log.read_text()}")
            time.sleep(0.03)
        return found

    def wait_for_container(self, call_id: str, *, attempt: int = 1, timeout_s: float = 30.0) -> str:
        """The container that runs the nth attempt of a call's input."""

        def running(state: Json) -> str | None:
            input = state["calls"][call_id]["inputs"][0]
            return input["container_id"] if len(input["attempts"]) >= attempt else None

        found: str = self.wait_until(running, f"attempt {attempt} of {call_id} runs", timeout_s)
        return found

    def wait_for_log(self, text: str, *, timeout_s: float = 30.0) -> None:
        self.wait_until(lambda _: text in self.log_text(), f"{text!r} is printed", timeout_s)

    def wait_for_end(self, call_id: str, *, timeout_s: float = 30.0) -> None:
        """Until the call is over and so is every container that worked on it."""

        def is_over(state: Json) -> bool:
            inputs = state["calls"][call_id]["inputs"]
            ids = {attempt["container_id"] for input in inputs for attempt in input["attempts"]}
            return all(i["status"] for i in inputs) and all(state["containers"][i]["state"] == "dead" for i in ids)

        self.wait_until(is_over, f"{call_id} is over", timeout_s)

    # What a test does.

    def behave(self, **behaviour: Json) -> Json:
        """Fields of modal_world.Behaviour."""
        return self._ask("POST", "/behaviour", behaviour)

    def advance(self, seconds: float) -> None:
        """Move its clock on."""
        self._ask("POST", "/clock", {"advance_s": seconds})

    def preempt(self, container_id: str) -> None:
        self._ask("POST", f"/containers/{container_id}/preempt")

    def kill(self, container_id: str) -> None:
        self._ask("POST", f"/containers/{container_id}/kill")

    def freeze(self, container_id: str) -> None:
        """Nothing in its first process runs any more, its heartbeat least of all."""
        self._ask("POST", f"/containers/{container_id}/freeze")

    def fault(self, rpc: str, kind: str, **how: Json) -> int:
        """See modal_faults.Fault; the number of it."""
        number: int = self._ask("POST", "/faults", {"rpc": rpc, "kind": kind, **how})["number"]
        return number

    def wait_for_fault(self, number: int, timeout_s: float = 30.0) -> bool:
        """Whether a call is held by it."""
        reached: bool = self._ask("POST", f"/faults/{number}/reached?timeout_s={timeout_s}")["reached"]
        return reached

    def release(self, number: int) -> None:
        self._ask("POST", f"/faults/{number}/release")

    def heal(self) -> None:
        self._ask("POST", "/faults/heal")

    def set_tokens(self, tokens: Mapping[str, str]) -> None:
        self._ask("POST", "/tokens", dict(tokens))

    def add_secret(self, name: str, values: Mapping[str, str]) -> None:
        self._ask("POST", "/secrets", {"name": name, "values": dict(values)})

    def fail_builds(self, *failing: tuple[str, str]) -> None:
        """(text in a layer, what its build says)."""
        self._ask("POST", "/failing", list(failing))

    def _ask(self, method: str, path: str, body: Json = None) -> Json:
        return json.loads(self._fetch(method, path, body))

    def _fetch(self, method: str, path: str, body: Json = None) -> bytes:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.control_url + path, content, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                found: bytes = answer.read()
        except urllib.error.HTTPError as e:
            raise AssertionError(f"{method} {path}: {e.code} {e.read().decode()}") from e
        return found
