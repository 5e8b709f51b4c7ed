"""What the emulated Modal answers to the bare client without running anything: what it keeps, refuses and loses."""

import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import emulator_jobs
import modal
import pytest
from modal_emulator import TOKEN_ID, ModalEmulator

BLOCK_BYTES = 8 * 1024 * 1024


def deploy(name: str, *, image: Any = None, **function: Any) -> None:
    app = modal.App(name, include_source=False)
    image = image or modal.Image.debian_slim().add_local_python_source("emulator_jobs")
    is_clustered = "size" in function
    job = modal.clustered(size=function.pop("size"))(emulator_jobs.meet) if is_clustered else emulator_jobs.double
    app.function(name="job", image=image, **function)(job)
    app.deploy(name=name)


REFUSED = {
    "30 hours": ({"timeout": 30 * 3600}, "timeout must be between 1 and 86400 seconds, got 108000"),
    "no time": ({"timeout": 0}, "timeout must be between 1 and 86400 seconds, got 0"),
    "long start": ({"startup_timeout": 90_000}, "startup_timeout must be at most 86400 seconds, got 90000"),
    "retries": ({"retries": modal.Retries(max_retries=11)}, "retries must be at most 10, got 11"),
    "gpu": ({"gpu": "NOPE:2"}, "unknown GPU type 'NOPE'"),
    "gpu in a list": ({"gpu": ["H100", "NOPE"]}, "unknown GPU type 'NOPE'"),
    "A10G!": ({"gpu": "A10G!"}, "GPU type A10G is never upgraded: write it without '!'"),
    "nine gpus": ({"gpu": "H100:9"}, "a container has at most 8 H100, got 9"),
    "nonpreemptible": ({"gpu": "T4", "nonpreemptible": True}, "nonpreemptible is not supported"),
    "disk": ({"ephemeral_disk": 4 * 1024 * 1024}, "ephemeral_disk must be between 524288 and 3145728 MiB"),
    "memory": ({"memory": 400 * 1024}, "memory must be at most 344064 MiB, got 409600"),
    "cpu": ({"cpu": 65.0}, "cpu must be at most 64 cores, got 65"),
    "cluster": ({"size": 33}, "a cluster has at most 32 containers, got 33"),
}


@pytest.mark.parametrize(("function", "message"), REFUSED.values(), ids=REFUSED)
def test_what_the_client_takes_and_the_server_refuses(
    modal_server: ModalEmulator, function: dict[str, Any], message: str
) -> None:
    with pytest.raises(modal.exception.InvalidError, match=message.replace("(", r"\(")):
        deploy("refused", **function)


@pytest.mark.parametrize("gpu", ["H100!:8", ["B200", "H200", "A100-80GB:8"], "A10:4"], ids=["pinned", "list", "A10"])
def test_what_is_asked_of_a_function_is_recorded_field_by_field(modal_server: ModalEmulator, gpu: Any) -> None:
    deploy("recorded", gpu=gpu, timeout=86400, retries=modal.Retries(max_retries=10, initial_delay=0.0))
    request = modal_server.function("job")
    variants = [r["function"] for r in request.get("function_data", {}).get("ranked_functions", [])]
    found = [f["resources"]["gpu_config"] for f in variants or [request["function"]]]
    asked = [g.partition(":") for g in ([gpu] if isinstance(gpu, str) else gpu)]
    assert [(g["gpu_type"], g["count"]) for g in found] == [(kind, int(number or 1)) for kind, _, number in asked]
    assert (variants or [request["function"]])[0]["retry_policy"]["retries"] == 10


def test_deploying_again_keeps_the_app_and_uploads_nothing(modal_server: ModalEmulator) -> None:
    deploy("twice")
    app_id, uploaded = modal.App.lookup("twice").app_id, modal_server.state["uploaded_bytes"]
    deploy("twice")
    assert modal.App.lookup("twice").app_id == app_id
    assert modal_server.state["uploaded_bytes"] == uploaded
    assert len(modal_server.state["apps"][app_id]["deployments"]) == 2
    modal.App.lookup("twice").stop()
    assert modal_server.state["apps"][app_id]["state"] == "APP_STATE_STOPPED"
    with pytest.raises(modal.exception.NotFoundError):
        modal.Function.from_name("twice", "job").hydrate()


def test_an_app_that_is_not_deployed_ends_with_its_client(modal_server: ModalEmulator) -> None:
    def state() -> str:
        found: str = modal_server.state["apps"][app.app_id]["state"]
        return found

    app = modal.App("brief", include_source=False)
    with app.run():
        assert state() == "APP_STATE_EPHEMERAL"
    assert state() == "APP_STATE_STOPPED"
    modal_server.behave(client_timeout_s=60.0)
    with app.run():
        modal_server.advance(61)
        modal_server.wait_until(lambda _: state() == "APP_STATE_STOPPED", "the silent client's app is stopped")


def test_a_failing_build_shows_its_log_and_makes_no_function(
    modal_server: ModalEmulator, capfd: pytest.CaptureFixture[str]
) -> None:
    modal_server.fail_builds(("no-such-package", "E: Unable to locate package no-such-package"))
    image = modal.Image.debian_slim().apt_install("no-such-package")
    with pytest.raises(modal.exception.ImageBuildError, match="Unable to locate package"), modal.enable_output():
        deploy("unbuilt", image=image)
    assert "Unable to locate package no-such-package" in capfd.readouterr().out
    assert modal.App.lookup("unbuilt", create_if_missing=True) is not None


def test_secrets_must_exist_and_hold_the_keys_asked_for(modal_server: ModalEmulator) -> None:
    modal_server.add_secret("huggingface", {"HF_TOKEN": "hf_emulated"})
    modal.Secret.from_name("huggingface", required_keys=["HF_TOKEN"]).hydrate()
    with pytest.raises(modal.exception.NotFoundError, match=r"missing key.*WANDB_API_KEY"):
        modal.Secret.from_name("huggingface", required_keys=["WANDB_API_KEY"]).hydrate()
    with pytest.raises(modal.exception.NotFoundError, match="Secret 'nobody' not found"):
        modal.Secret.from_name("nobody").hydrate()
    with pytest.raises(modal.exception.NotFoundError, match="Environment 'nowhere' not found"):
        modal.Secret.from_name("huggingface", environment_name="nowhere").hydrate()


def test_a_wrong_token_is_refused(modal_server: ModalEmulator) -> None:
    client = modal.Client.from_credentials(TOKEN_ID, "as-of-somebody-else")
    with pytest.raises(modal.exception.AuthError):
        modal.Volume.from_name("any", create_if_missing=True, client=client).hydrate()


def test_a_volume_of_another_version_is_refused(modal_server: ModalEmulator) -> None:
    modal.Volume.from_name("versioned", create_if_missing=True, version=1).hydrate()
    with pytest.raises(modal.exception.Error, match="has version 1, not 2"):
        modal.Volume.from_name("versioned", create_if_missing=True, version=2).hydrate()


@pytest.mark.parametrize("version", [1, 2])
def test_files_come_back_from_a_volume_as_they_went_up_and_unchanged_ones_go_up_once(
    modal_server: ModalEmulator, tmp_path: Path, version: Any
) -> None:
    content = b"\0" * version + b"first block".ljust(BLOCK_BYTES, b"\0") + b"of the second\0\0"
    (tmp_path / "big.bin").write_bytes(content)
    (tmp_path / "empty").touch()
    volume = modal.Volume.from_name(f"files-{version}", create_if_missing=True, version=version)

    def upload() -> int:
        before: int = modal_server.state["uploaded_bytes"]
        with volume.batch_upload(force=True) as batch:
            batch.put_directory(tmp_path, "/runs/r1")
        uploaded: int = modal_server.state["uploaded_bytes"] - before
        return uploaded

    assert upload() > 0
    assert upload() == 0
    assert b"".join(volume.read_file("runs/r1/big.bin")) == content
    assert b"".join(volume.read_file("runs/r1/empty")) == b""
    assert sorted(e.path for e in volume.iterdir("/runs/r1", recursive=False)) == ["runs/r1/big.bin", "runs/r1/empty"]
    assert [(e.path, e.type.name) for e in volume.iterdir("/", recursive=False)] == [("runs", "DIRECTORY")]
    with pytest.raises(FileExistsError), volume.batch_upload() as batch:
        batch.put_file(tmp_path / "empty", "/runs/r1/empty")
    modal.Volume.rename(f"files-{version}", f"renamed-{version}")
    with pytest.raises(modal.exception.NotFoundError):
        modal.Volume.from_name(f"files-{version}").hydrate()
    volume = modal.Volume.from_name(f"renamed-{version}")
    volume.remove_file("/runs/r1", recursive=True)
    with pytest.raises(FileNotFoundError):
        list(volume.read_file("runs/r1/big.bin"))


def test_an_error_before_the_effect_and_a_lost_answer_after_it(modal_server: ModalEmulator) -> None:
    deploy("faulty")
    function = modal.Function.from_name("faulty", "job").hydrate()
    modal_server.fault("FunctionMap", "error", status="RESOURCE_EXHAUSTED", message="too many requests")
    with pytest.raises(modal.exception.ResourceExhaustedError, match="too many requests"):
        function.spawn(1)
    before = len(modal_server.state["calls"])
    modal_server.fault("FunctionMap", "lost")
    function.spawn(1)  # the client asks again with the same key, and is given the first answer
    assert len(modal_server.state["calls"]) == before + 1
    modal_server.behave(is_idempotent=False)
    modal_server.fault("FunctionMap", "lost")
    function.spawn(1)
    assert len(modal_server.state["calls"]) == before + 3
    modal.App.lookup("faulty").stop()


def test_a_client_killed_once_its_call_was_taken_leaves_it_running(modal_server: ModalEmulator, tmp_path: Path) -> None:
    deploy("orphan")
    held = modal_server.fault("FunctionMap", "hold_after")
    script = "import modal; modal.Function.from_name('orphan', 'job').spawn(21)"
    client = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    assert modal_server.wait_for_fault(held)
    client.kill()
    client.wait()
    (call_id,) = [
        id for id, call in modal_server.state["calls"].items() if call["app_id"] == modal.App.lookup("orphan").app_id
    ]
    assert modal.FunctionCall.from_id(call_id).get(timeout=30)[0] == 42
    modal.App.lookup("orphan").stop()


def test_the_client_can_reach_nothing_but_loopback(modal_server: ModalEmulator) -> None:
    assert os.environ["MODAL_TOKEN_ID"] == TOKEN_ID
    with pytest.raises(AssertionError, match="a test wanted to connect to"):
        socket.create_connection(("198.51.100.7", 443), timeout=0.1)
    with pytest.raises((AssertionError, urllib.error.URLError)):
        urllib.request.urlopen("http://198.51.100.7/", timeout=0.1)
