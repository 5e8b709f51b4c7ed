"""SkyPilot's real API server on an AWS that is moto, on loopback: what is refused, and what is rented.

No task runs here: the machines are entries in moto's tables, and the way to them is `false` in the place of ssh.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from canaries import below, forms, leaks
from sky_places import AWS_IMAGE, make_home
from sky_server import SECRET_KEY, SkyServer, client, instances, moto_aws

from ftl.backends.sky_client import shared_worker
from ftl.backends.skypilot import SkypilotBackend
from ftl.backends.skypilot_cloud import SkypilotCloud
from ftl.contract import Bundle, JobHandle, JobSpec, JobState
from ftl.errors import BackendError

IMAGE = "example.com/me/ftl@sha256:" + "a" * 64
CANARY = "canary-3f9d1c07b2a84e56"
_WAIT_S = 900
"""No bound to keep to: it is for a machine that does much besides."""


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    with moto_aws() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def server(aws: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SkyServer]:
    home = make_home(tmp_path_factory.mktemp("sky"))
    config = {
        "allowed_clouds": ["aws"],
        "aws": {"use_internal_ips": True, "ssh_proxy_command": "/bin/false"},
        "jobs": {"controller": {"consolidation_mode": True}},
    }
    server = SkyServer(home, config=config, aws_endpoint=aws)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.client_env.items():
            patch.setenv(name, value)
        patch.setenv("CANARY", CANARY)
        shared_worker.cache_clear()  # that of another file knows another server
        try:
            server.start()
            yield server
        finally:
            server.kill()
            shared_worker.cache_clear()


class Lab:
    """A backend for each cloud file, and what it is asked to run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "bundle").mkdir()
        (folder / "bundle/file").write_text("content\n")

    def backend(self, **keys: object) -> SkypilotBackend:
        """With a secret, as each run here."""
        common = {"provider": "skypilot", "infra": "aws/us-east-1", "gpu": "L4", "image": IMAGE, "secrets": ["CANARY"]}
        return SkypilotBackend(SkypilotCloud.model_validate(common | keys))

    def spec(self, backend: SkypilotBackend, run_id: str) -> JobSpec:
        fields: dict[str, Any] = {"run_id": run_id, "secrets": backend.cloud.secrets, **backend.spec_fields()}
        return JobSpec.model_validate(fields)

    def submit(self, backend: SkypilotBackend, run_id: str) -> JobHandle:
        run_dir = self.folder / run_id
        run_dir.mkdir(exist_ok=True)
        bundle = Bundle(sha256="b" * 64, path=str(self.folder / "bundle"), size_bytes=1)
        return backend.submit(self.spec(backend, run_id), bundle, run_dir)


@pytest.fixture(scope="module")
def lab(server: SkyServer, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


def wait_for(condition: Callable[[], Any], what: str) -> Any:  # Any: what the condition gives
    give_up = time.monotonic() + _WAIT_S
    while not (found := condition()):
        assert time.monotonic() < give_up, f"waited {_WAIT_S} s for {what}"
        time.sleep(0.5)
    return found


def machine_of(aws: str, backend: SkypilotBackend, handle: JobHandle) -> dict[str, Any]:  # Any: as AWS tells it
    def found() -> list[dict[str, Any]]:
        ended = ended_of(backend, handle)
        assert ended is None, ended
        return instances(aws)

    (machine,) = wait_for(found, "the machine")
    return dict(machine)


def ended_of(backend: SkypilotBackend, handle: JobHandle) -> JobState | None:
    state = backend.status(handle)
    return state if state.phase == "ended" else None


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        pytest.param({"infra": "aws/us-esat-1"}, "infra: Invalid region 'us-esat-1'", id="region"),
        pytest.param({"gpu": "A1000"}, "gpu: AWS has no A1000:1", id="gpu"),
        pytest.param({"infra": "gcp"}, "infra: gcp is not enabled", id="credentials"),
    ],
)
def test_what_cannot_be_had_is_one_sentence_before_anything_is_rented(
    lab: Lab, aws: str, keys: dict[str, object], sentence: str
) -> None:
    backend = lab.backend(**keys)
    (problem,) = backend.preflight(lab.spec(backend, "refused"))
    assert str(problem).startswith(sentence)
    assert instances(aws) == []


def test_image_that_is_not_there_is_one_sentence_and_nothing_is_rented(lab: Lab, aws: str) -> None:
    backend = lab.backend(image="none", sky={"resources": {"image_id": "ami-00000000"}})
    with pytest.raises(BackendError, match=r"^image: Image 'ami-00000000' not found in AWS region us-east-1"):
        lab.submit(backend, "no-image")
    assert instances(aws) == []


def test_region_that_cannot_give_a_machine_ends_the_attempt_and_leaves_nothing(lab: Lab, aws: str) -> None:
    """An account without a subnet there, for which SkyPilot has no word before it tries."""
    ec2 = client(aws, "ec2", "eu-west-1")
    for subnet in ec2.describe_subnets()["Subnets"]:
        ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    backend = lab.backend(infra="aws/eu-west-1")
    handle = lab.submit(backend, "no-subnet")
    ended = wait_for(lambda: ended_of(backend, handle), "the refusal")
    assert ended.cause == "environment"
    assert "SkyPilot could not launch it" in str(ended.message)
    assert instances(aws) == []


def test_launch_rents_what_the_cloud_file_says_and_nothing_twice(lab: Lab, aws: str) -> None:
    backend = lab.backend()
    assert backend.preflight(lab.spec(backend, "once")) == []
    handle = lab.submit(backend, "once")
    machine = machine_of(aws, backend, handle)
    assert machine["InstanceType"] == "g6.xlarge"
    assert machine["Region"] == "us-east-1"
    assert machine["ImageId"] == AWS_IMAGE
    assert "InstanceLifecycle" not in machine  # on demand
    ((group,),) = (card["Groups"] for card in machine["NetworkInterfaces"])
    (found,) = client(aws, "ec2", "us-east-1").describe_security_groups(GroupIds=[group["GroupId"]])["SecurityGroups"]
    open_ports = [
        rule["FromPort"]
        for rule in found["IpPermissions"]
        if any(addresses["CidrIp"] == "0.0.0.0/0" for addresses in rule["IpRanges"])
    ]
    assert open_ports == [22]  # ssh alone
    assert lab.submit(backend, "once").ref["name"] == handle.ref["name"]
    assert len(instances(aws)) == 1


def test_no_secret_is_on_the_servers_disk_or_in_a_log(lab: Lab, server: SkyServer) -> None:
    assert leaks(below(server.home, lab.folder), list(forms(CANARY))) == []
    aws = list(forms(SECRET_KEY))
    places = {name: content for name, content in below(server.home, lab.folder).items() if "/.aws/" not in name}
    assert leaks(places, aws) == []


def test_nothing_but_loopback_was_asked_for(server: SkyServer) -> None:
    asked = server.refused.read_text().splitlines() if server.refused.exists() else []
    assert {line.split()[0] for line in asked} <= {"pypi.org"}  # a server looks there for its own newest version
    assert os.environ["HOME"] == str(server.home)
