"""Launcher and API server killed with SIGKILL, on an AWS that is moto (moto_lab.py): one machine, which ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aws_orders import Orders, watched_orders
from canaries import below, forms, leaks
from moto_lab import CANARY, IMAGE, Lab, ended_of, machine_of, sky_on_moto, wait_for
from sky_places import write_config
from sky_server import SkyServer, instances, moto_aws

from ftl import jobs
from ftl.backends.skypilot import SkypilotBackend
from ftl.backends.skypilot_deadman import first_boot
from ftl.jobs import RunRecord
from ftl.launch import backend_of

TOKEN = "hf_canaryTOKENcanaryTOKENcanaryTOK"
CLOUD = f"""provider: skypilot
infra: aws/us-east-1
gpu: L4
image: {IMAGE}
secrets: [CANARY, HF_TOKEN]
env: {{COLOUR: blue}}
"""
FTL = """
import os, signal
from ftl.backends import sky_client
ask, moment = sky_client.Sky.ask, os.environ.get("FTL_TEST_KILL")
def killed(self, op, *rest, **order):
    if (op, "before") == tuple((moment or "").split()[:2]):
        os.kill(os.getpid(), signal.SIGKILL)
    answer = ask(self, op, *rest, **order)
    if (op, "after") == tuple((moment or "").split()[:2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
sky_client.Sky.ask = killed
from ftl.cli import main
main()
"""
"""The command, killed at the moment that FTL_TEST_KILL names: `launch before` is before SkyPilot is asked to launch."""


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    with moto_aws() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def server(aws: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SkyServer]:
    with sky_on_moto(aws, tmp_path_factory.mktemp("sky")) as server:
        yield server


@pytest.fixture
def orders() -> Iterator[Orders]:
    with watched_orders() as orders:
        yield orders


def ftl(*words: str, killed: str = "") -> int:
    """The exit code of `ftl WORDS`."""
    env = {**os.environ, "HF_TOKEN": TOKEN, "FTL_TEST_KILL": killed}
    return subprocess.run([sys.executable, "-c", FTL, *words], env=env, check=False).returncode


def the_run() -> tuple[RunRecord, SkypilotBackend]:
    (record,) = jobs.all_records()
    backend = backend_of(record)
    assert isinstance(backend, SkypilotBackend)
    return record, backend


def test_launcher_and_server_killed_leave_one_machine_that_ends_itself(
    server: SkyServer, aws: str, orders: Orders, own_state: Path, tmp_path: Path
) -> None:
    config, cloud = write_config(tmp_path / "files", CLOUD)
    # The launcher, before SkyPilot is asked: nothing is rented.
    train = ("train", str(config), "--cloud", str(cloud), "--detach")
    assert ftl(*train, killed="launch before") == -signal.SIGKILL
    record, backend = the_run()
    assert record.handle is None
    assert backend._sky.ask("find", name=f"ftl-{record.id}-1", managed=False) is None
    # Again, when SkyPilot has the launch and the record does not say so yet.
    assert ftl("resume", record.id, "--detach", killed="launch after") == -signal.SIGKILL
    assert the_run()[0].handle is None
    # It is launched once, whoever asks.
    assert ftl("resume", record.id, "--detach") == 0
    record, backend = the_run()
    assert [attempt.number for attempt in record.attempts] == [1]
    assert record.handle is not None
    machine_of(aws, backend, record.handle)
    assert len(orders.seen) == 1
    assert first_boot(10) in orders.seen[0].user_data  # it ends itself, whoever is killed from here on

    # The server, which waits for ssh. What it was about to do is forgotten, the machine is there.
    server.kill()
    assert len(instances(aws)) == 1
    server.start()
    ended = wait_for(lambda: ended_of(backend, record.handle), "the attempt to be given up")
    assert (ended.cause, ended.exit_code) == ("lost", 75)
    assert len(instances(aws)) == 1
    assert ftl("gc", "--cloud", str(cloud)) == 0
    wait_for(lambda: not instances(aws), "the end of the machine")
    assert len(orders.seen) == 1

    wanted = [form for secret in (CANARY, TOKEN) for form in forms(secret)]
    assert leaks(below(server.home, own_state, tmp_path), wanted) == []


def test_spot_run_survives_its_server_as_one_job(server: SkyServer, aws: str, orders: Orders, tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    backend = lab.backend(spot=True, controller="local", checkpoints="s3://bucket/runs")
    handle = lab.submit(backend, "spot")
    assert machine_of(aws, backend, handle)["InstanceLifecycle"] == "spot"
    assert first_boot(10) in orders.seen[0].user_data
    job = wait_for(lambda: backend._sky.ask("find", name=handle.ref["name"], managed=True), "the job")
    server.kill()
    server.start()
    # Its controller goes on with the job: it ends the machine that it knows nothing of, and rents another one.
    assert lab.submit(backend, "spot").ref["name"] == handle.ref["name"]
    assert backend._sky.ask("find", name=handle.ref["name"], managed=True) == job
    assert len(instances(aws)) <= 1
    backend.remove(handle)
    ended = wait_for(lambda: ended_of(backend, handle), "the end of the job")
    assert ended.cause == "signal"
    assert instances(aws) == []
