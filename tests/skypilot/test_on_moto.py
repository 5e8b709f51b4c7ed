"""What SkyPilot's real API server refuses, and what it rents, on an AWS that is moto (moto_lab.py)."""

import os
from collections.abc import Iterator

import pytest
from aws_orders import NO_CAPACITY, QUOTA, Orders, watched_orders
from canaries import below, forms, leaks
from moto_lab import CANARY, Lab, ended_of, machine_of, sky_on_moto, wait_for
from sky_places import AWS_IMAGE
from sky_server import SECRET_KEY, SkyServer, client, instances, moto_aws

from ftl.errors import BackendError


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    with moto_aws() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def server(aws: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SkyServer]:
    with sky_on_moto(aws, tmp_path_factory.mktemp("sky")) as server:
        yield server


@pytest.fixture(scope="module")
def lab(server: SkyServer, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture
def orders() -> Iterator[Orders]:
    with watched_orders() as orders:
        yield orders


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


def test_quota_of_the_account_ends_the_attempt_with_its_key_and_leaves_nothing(
    lab: Lab, aws: str, orders: Orders
) -> None:
    orders.refuse = lambda order: QUOTA
    backend = lab.backend()
    handle = lab.submit(backend, "quota")
    ended = wait_for(lambda: ended_of(backend, handle), "the refusal")
    assert (ended.cause, ended.exit_code) == ("environment", 3)
    assert "quota: " in str(ended.message)
    assert QUOTA[0] in str(ended.message)
    assert {(order.region, order.instance_type) for order in orders.seen} == {("us-east-1", "g6.xlarge")}
    assert instances(aws) == []


def test_prefer_takes_a_machine_on_demand_where_there_is_none_on_spot(lab: Lab, aws: str, orders: Orders) -> None:
    orders.refuse = lambda order: NO_CAPACITY if order.is_spot else None
    backend = lab.backend(spot="prefer", controller="local", checkpoints="s3://bucket/runs")
    handle = lab.submit(backend, "prefer")
    machine = machine_of(aws, backend, handle)
    assert "InstanceLifecycle" not in machine
    assert [order.is_spot for order in orders.seen] == [*[True] * (len(orders.seen) - 1), False]
    assert len(orders.seen) > 1
    backend.remove(handle)
    wait_for(lambda: not instances(aws), "the end of the machine")


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
