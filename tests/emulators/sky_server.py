"""SkyPilot's real API server, shut in: a home and a port of its own, no way off loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import boto3
import yaml
from moto.server import ThreadedMotoServer

SITE = Path(__file__).with_name("sky_site")
REGIONS = ("us-east-1", "eu-west-1")
"""Those of sky_places.py."""
ACCESS_KEY = "AKIATESTTESTTESTTEST"
SECRET_KEY = "canary-aws-secret-0123456789abcdef"
_START_S = 300
_ROLE = "skypilot-v1"
"""SkyPilot's role and instance profile."""


PYTHON = Path(os.environ.get("FTL_SKYPILOT_PYTHON") or Path(sys.prefix) / "sky/bin/python")
"""That of `make .venv/sky/complete`, or another."""


class SkyServer:
    """The server of one home. What its clients need besides is `client_env`."""

    def __init__(self, home: Path, *, config: dict[str, Any], aws_endpoint: str | None = None) -> None:  # Any: YAML
        self.home, self.port = home, _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._sessions: set[int] = set()
        self.refused = home / "refused.txt"
        """Who was asked for beyond loopback, one a line."""
        (home / ".sky").mkdir(parents=True, exist_ok=True)
        (home / ".sky/config.yaml").write_text(yaml.safe_dump(config))
        kept = ("LANG", "TERM", "TMPDIR", "OMP_NUM_THREADS")
        self.env = {name: os.environ[name] for name in kept if name in os.environ} | {
            "HOME": str(home),
            "PATH": f"{PYTHON.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(SITE),
            "FTL_TEST_REFUSED": str(self.refused),
            "FTL_TEST_PROBE": f"http://127.0.0.1:{self.port}/api/health",
            "SKYPILOT_API_SERVER_LOCAL_PORT": str(self.port),
            "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
            "SKYPILOT_POD_MEMORY_GB_LIMIT": "4",  # it starts workers for all the memory that it sees
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            # SkyPilot packs itself with `pip wheel`; 0 is how pip spells "with the setuptools that I have"
            "PIP_NO_BUILD_ISOLATION": "0",
        }
        if aws_endpoint is not None:
            self.env |= {"AWS_ENDPOINT_URL": aws_endpoint, "AWS_EC2_METADATA_DISABLED": "true"}
            folder = home / ".aws"
            folder.mkdir()
            lines = ("[default]", f"aws_access_key_id = {ACCESS_KEY}", f"aws_secret_access_key = {SECRET_KEY}")
            (folder / "credentials").write_text("\n".join(lines) + "\n")
            (folder / "config").write_text("[default]\nregion = us-east-1\n")

    @property
    def client_env(self) -> dict[str, str]:
        """What `ftl` needs to talk to it: a SkyPilot that is shut in too, should it find no server and start one."""
        python = self.home / "python"
        if not python.exists():
            python.write_text(f'#!/bin/sh\nPYTHONPATH={SITE} exec {PYTHON} "$@"\n')
            python.chmod(0o755)
        return {name: value for name, value in self.env.items() if name != "PYTHONPATH"} | {
            "FTL_SKYPILOT_PYTHON": str(python)
        }

    def start(self) -> None:
        """Start it, and wait until it answers."""
        log = self.home / "server.log"
        with log.open("ab") as file:
            process = self._process = subprocess.Popen(
                [PYTHON.with_name("sky"), "api", "start", "--foreground", "--port", str(self.port)],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self._sessions.add(process.pid)
        give_up = time.monotonic() + _START_S
        while not self.is_up():
            if process.poll() is not None or time.monotonic() > give_up:
                raise AssertionError(f"SkyPilot's server did not come up:\n{log.read_text()[-3000:]}")
            time.sleep(0.2)

    def is_up(self) -> bool:
        """Whether it answers and says that it is well."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/api/health", timeout=2) as answer:
                return json.load(answer)["status"] == "healthy"
        except (OSError, ValueError):
            return False

    def processes(self) -> list[int]:
        """All that live in its home but this one: the server, its workers, job controllers, ssh."""
        mark = f"\0HOME={self.home}\0".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            pid = int(folder.name)
            try:
                # A worker puts its title where its environment stood; its session tells whose it is.
                if os.getsid(pid) in self._sessions or mark in b"\0" + (folder / "environ").read_bytes():
                    is_over = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
                    found += [] if is_over else [pid]
            except OSError:
                continue
        return [pid for pid in found if pid != os.getpid()]

    def kill(self) -> None:
        """End it and all it has started with SIGKILL, as a machine that loses power does."""
        give_up = time.monotonic() + 20
        while pids := self.processes():
            assert time.monotonic() < give_up, pids
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            time.sleep(0.1)
        if self._process is not None:
            self._process.wait()


@contextmanager
def moto_aws() -> Iterator[str]:
    """An AWS on loopback that SkyPilot can use with `use_internal_ips`, and has used before: its endpoint."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        # What moto knows belongs to the process: that of a server before this one, too.
        urlopen(Request(f"{endpoint}/moto-api/reset", method="POST")).close()
        for region in REGIONS:
            ec2 = client(endpoint, "ec2", region)
            for subnet in ec2.describe_subnets()["Subnets"]:
                ec2.modify_subnet_attribute(SubnetId=subnet["SubnetId"], MapPublicIpOnLaunch={"Value": False})
        # Where they are missing SkyPilot makes them, and waits twice 15 s; moto does not take its policies.
        iam = client(endpoint, "iam", REGIONS[0])
        iam.create_instance_profile(InstanceProfileName=_ROLE)
        iam.create_role(RoleName=_ROLE, AssumeRolePolicyDocument='{"Version": "2012-10-17", "Statement": []}')
        iam.add_role_to_instance_profile(InstanceProfileName=_ROLE, RoleName=_ROLE)
        yield endpoint
    finally:
        server.stop()


def client(endpoint: str, service: str, region: str) -> Any:  # Any: boto3 has no types
    """A client of that AWS."""
    return boto3.client(
        service,
        region_name=region,
        endpoint_url=endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )


def instances(endpoint: str) -> list[dict[str, Any]]:  # Any: as AWS tells them
    """Every instance that is not gone, with its region under "Region"."""
    return [
        instance | {"Region": region}
        for region in REGIONS
        for reservation in client(endpoint, "ec2", region).describe_instances()["Reservations"]
        for instance in reservation["Instances"]
        if instance["State"]["Name"] not in ("terminated", "shutting-down")
    ]


def _free_port() -> int:
    """A port that is free together with the one SkyPilot derives from it for its queue."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            try:
                other.bind(("127.0.0.1", 50000 + (11 + port - 46580) % 10000))
            except OSError:
                continue
            return port
