"""The watch of a machine over itself, run by bash where the machine's commands are stand-ins.

curl is the real one with its real signature; the addresses it goes to are led to a metadata service and an AWS here.
"""

import base64
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sky_server import ACCESS_KEY, SECRET_KEY, client, instances, moto_aws

from ftl.backends.skypilot_deadman import first_boot, script

AMI = "ami-785db401"


class Machine:
    """One with the stand-ins of `folder` before its PATH. `ps` and `pgrep` say what the test has them say."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands(ps="exit 0", pgrep="exit 1", sleep=f"echo $1 >> {folder}/slept", shutdown=f"touch {folder}/down")
        self.commands(curl=f"touch {folder}/curled; exit 7")

    def commands(self, **bodies: str) -> None:
        for name, body in bodies.items():
            (self.folder / name).write_text(f"#!/bin/bash\n{body}\n")
            (self.folder / name).chmod(0o755)

    def run(self) -> None:
        """With a watch of two minutes."""
        env = {"PATH": f"{self.folder}:{os.environ['PATH']}"}
        subprocess.run(["bash", "-c", script(2)], env=env, check=True)

    @property
    def slept_s(self) -> int:
        return sum(map(int, (self.folder / "slept").read_text().split()))

    @property
    def is_down(self) -> bool:
        return (self.folder / "down").exists()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def after(folder: Path, num_calls: int, then: str, before: str) -> str:
    """A command that does `before` so many times, and from then on `then`."""
    calls = folder / "calls"
    return f'echo >> {calls}; if [ "$(wc -l < {calls})" -gt {num_calls} ]; then {then}; else {before}; fi'


def test_machine_without_job_and_ssh_ends_itself(machine: Machine) -> None:
    machine.run()
    assert machine.is_down
    assert machine.slept_s == 2 * 60 + 60  # and a minute for the order to be terminated


@pytest.mark.parametrize(("autostop", "minutes"), [(10, 30), (45, 45)])
def test_watch_is_half_an_hour_or_autostop(autostop: int, minutes: int) -> None:
    assert brought(first_boot(autostop)) == script(minutes)


def brought(command: str) -> str:
    """The script in a command for the first boot."""
    return base64.b64decode(command.split()[1]).decode()


def test_session_of_ssh_starts_the_wait_again(machine: Machine) -> None:
    machine.commands(ps=after(machine.folder, 20, "true", "echo 1000 sshd"))
    machine.run()
    assert machine.slept_s == 20 * 10 + 120 + 60


def test_what_is_no_session_keeps_no_machine(machine: Machine) -> None:
    """sshd itself, one of it that has not logged in yet, something else of the user's."""
    machine.commands(ps="echo 0 sshd; echo 107 sshd; echo 1000 bash")
    machine.run()
    assert machine.is_down
    assert machine.slept_s == 180


def test_machine_whose_job_has_begun_is_left_to_its_autostop(machine: Machine) -> None:
    machine.commands(pgrep=after(machine.folder, 5, "exit 0", "exit 1"))
    machine.run()
    assert not machine.is_down
    assert not (machine.folder / "curled").exists()


@pytest.mark.parametrize(
    ("command", "is_job"),
    [
        ('/root/env/bin/python -m ftl_runtime.sky_entry', True),
        ("/root/skypilot-runtime/bin/python -u -msky.jobs.controller", True),
        ("python -m sky.skylet.skylet", False),
        ("/bin/bash /usr/local/sbin/ftl-deadman", False),
    ],
)  # fmt: skip
def test_job_is_told_by_its_command(machine: Machine, command: str, is_job: bool) -> None:
    """As pgrep -f matches them: an extended expression over the whole command."""
    (pattern,) = re.findall(r"pgrep -f '([^']+)'", script(10))
    assert bool(re.search(pattern, command)) is is_job


def test_command_for_the_first_boot_brings_the_script(machine: Machine) -> None:
    """It stands in a YAML list without quotes, where `: ` and ` #` would mean something."""
    command = first_boot(10)
    assert len(command) < 4096  # of the 16 KiB that AWS takes
    assert not re.search(r": |\s#|\n", command)
    target = machine.folder / "deadman"
    machine.commands(**{"systemd-run": f"touch {machine.folder}/started"})
    there = command.replace("/usr/local/sbin/ftl-deadman", str(target))
    subprocess.run(["sh", "-c", there], env={"PATH": f"{machine.folder}:{os.environ['PATH']}"}, check=True)
    assert target.read_text() == script(30)
    assert (machine.folder / "started").exists()


@pytest.fixture
def metadata() -> Iterator[tuple[str, dict[str, str]]]:
    """A metadata service as AWS documents it, and what it answers."""
    texts: dict[str, str] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self._answer("a-token" if self.path == "/latest/api/token" else None)

        def do_GET(self) -> None:
            is_right = self.headers.get("X-aws-ec2-metadata-token") == "a-token"
            self._answer(texts.get(self.path.removeprefix("/latest/meta-data/")) if is_right else None)

        def _answer(self, text: str | None) -> None:
            self.send_response(200 if text is not None else 401)
            self.end_headers()
            self.wfile.write((text or "").encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", texts
    server.shutdown()
    server.server_close()


def test_machine_is_terminated_by_its_role(machine: Machine, metadata: tuple[str, dict[str, str]]) -> None:
    service, texts = metadata
    with moto_aws() as endpoint:
        ec2 = client(endpoint, "ec2", "us-east-1")
        (found,) = ec2.run_instances(ImageId=AMI, MinCount=1, MaxCount=1)["Instances"]
        other = ec2.run_instances(ImageId=AMI, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
        keys = {"AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY, "Token": "a/session+token=="}
        texts |= {
            "instance-id": found["InstanceId"],
            "placement/region": "us-east-1",
            "services/domain": "amazonaws.com",
            "iam/security-credentials/": "skypilot-v1",
            "iam/security-credentials/skypilot-v1": json.dumps(keys, indent=2),
        }
        curl = (
            f'args=("${{@//http:\\/\\/169.254.169.254/{service}}}")\n'
            f'if [ "$2" = -K ]; then tee {machine.folder}/asked | sed "s|https://ec2.us-east-1.amazonaws.com|{endpoint}|"'
            f' | /usr/bin/curl -v "$@" 2> {machine.folder}/sent; else /usr/bin/curl "${{args[@]}}"; fi'
        )
        machine.commands(curl=curl)
        machine.run()
        assert [one["InstanceId"] for one in instances(endpoint)] == [other]
    sent = (machine.folder / "sent").read_text()
    assert f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/" in sent
    assert "/us-east-1/ec2/aws4_request" in sent
    assert "X-Amz-Security-Token: a/session+token==" in sent
