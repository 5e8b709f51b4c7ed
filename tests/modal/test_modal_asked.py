"""What Modal is really asked for: the client's own messages, as the emulated server recorded them."""

from pathlib import Path
from typing import Any

import pytest
from modal_emulator import ModalEmulator

from ftl.backends.modal import ModalBackend
from ftl.backends.modal_app import app_of, entry_file
from ftl.backends.modal_cloud import ModalCloud
from ftl.backends.modal_plan import plan
from ftl.contract import Bundle, JobSpec

BUNDLE = Bundle(sha256="b" * 64, path="/here", size_bytes=1)
DIGEST = f"ghcr.io/me/mine:1@sha256:{'c' * 64}"


def deployed(server: ModalEmulator, run_id: str, cloud: ModalCloud, **fields: object) -> dict[str, Any]:
    """FunctionCreate of `train`, with a list of GPUs the first of its variants."""
    spec = JobSpec.model_validate({"run_id": run_id, **ModalBackend(cloud).spec_fields(), **fields})
    asked = plan(spec, cloud, BUNDLE)
    app_of(asked).deploy(environment_name=asked.environment, tag="tag")
    return dict(server.function("train"))


def test_every_field_of_a_function_that_the_cloud_file_sets(modal_server: ModalEmulator) -> None:
    modal_server.add_secret("wandb", {"WANDB_API_KEY": "0123456789"})
    cloud = ModalCloud(
        gpu="h100!:4",
        cpus=8,
        memory=64,
        disk=1024,
        timeout=14 * 86400,
        attempt_timeout=7200,
        startup_timeout=600,
        retries=7,
        cloud="aws",
        regions=("us-east", "us-west"),
        volumes=({"name": "mine", "mount": "/data"},),
        modal_secrets=({"name": "wandb", "keys": ["WANDB_API_KEY"]},),
    )
    function = deployed(modal_server, "fields", cloud)["function"]
    resources = function["resources"]
    assert resources["gpu_config"] == {"gpu_type": "H100!", "count": 4}
    assert (resources["milli_cpu"], resources["memory_mb"], resources["ephemeral_disk_mb"]) == (8000, 65536, 1048576)
    assert (function["timeout_secs"], function["startup_timeout_secs"]) == (7200, 600)
    retries = function["retry_policy"]
    assert retries["retries"] == 7
    assert (retries["backoff_coefficient"], retries.get("initial_delay_ms", 0)) == (1.0, 0)
    assert function["single_use_containers"] is True
    assert function["autoscaler_settings"]["max_containers"] == 1
    assert function["scheduler_placement"]["regions"] == ["us-east", "us-west"]
    assert function["cloud_provider_str"].lower() == "aws"
    assert (function["module_name"], function["implementation_name"]) == ("modal_entry", "train")
    assert function["definition_type"] == "DEFINITION_TYPE_FILE"
    mounts = {mount["mount_path"]: mount for mount in function["volume_mounts"]}
    names = modal_server.state["volumes"]
    assert {path: names[mount["volume_id"]] for path, mount in mounts.items()} == {
        "/ftl/state": "ftl",
        "/ftl/cache": "ftl-cache",
        "/data": "mine",
    }
    assert all(mount["allow_background_commits"] for mount in mounts.values())
    made = {request["deployment_name"]: request for request in modal_server.requests("VolumeGetOrCreate")}
    assert made["ftl"]["version"] == made["ftl-cache"]["version"] == "VOLUME_FS_VERSION_V2"
    assert len(function["secret_ids"]) == 1
    asked = [r for r in modal_server.requests("SecretGetOrCreate") if r.get("deployment_name") == "wandb"]
    assert asked[-1]["required_keys"] == ["WANDB_API_KEY"]


def test_cpu_function_asks_for_no_gpu(modal_server: ModalEmulator) -> None:
    function = deployed(modal_server, "cpu", ModalCloud())["function"]
    assert not function["resources"].get("gpu_config", {}).get("gpu_type")
    assert function["timeout_secs"] == 86400
    assert function["retry_policy"]["retries"] == 10


def test_preference_list_is_ranked_in_its_order(modal_server: ModalEmulator) -> None:
    request = deployed(modal_server, "ranked", ModalCloud(gpu=("H200:2", "h100:2"), memory=32, prepare=False))
    ranked = request["function_data"]["ranked_functions"]
    wanted = [one["function"]["resources"]["gpu_config"] for one in sorted(ranked, key=lambda r: r.get("rank", 0))]
    assert wanted == [{"gpu_type": "H200", "count": 2}, {"gpu_type": "H100", "count": 2}]
    assert {one["function"]["resources"]["memory_mb"] for one in ranked} == {32768}
    assert request["function_data"]["timeout_secs"] == 86400


def test_cluster_is_a_group_that_talks_among_itself(modal_server: ModalEmulator) -> None:
    function = deployed(modal_server, "cluster", ModalCloud(gpu="H100:8", nodes=2, rdma=True))["function"]
    assert function["_experimental_group_size"] == 2
    assert function["i6pn_enabled"] is True
    assert function["resources"]["rdma"] is True
    assert function["resources"]["gpu_config"] == {"gpu_type": "H100", "count": 8}
    assert function["autoscaler_settings"]["max_containers"] == 2
    prepare = modal_server.function("prepare")["function"]
    assert prepare.get("_experimental_group_size", 0) == 0
    assert not prepare["resources"].get("gpu_config", {}).get("gpu_type")


def test_image_is_built_from_our_recipe_without_anything_secret(
    modal_server: ModalEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "never-in-an-image")
    cloud = ModalCloud(secrets=("HF_TOKEN",), env={"COLOUR": "blue"}, dockerfile_commands=("RUN pip list",))
    deployed(modal_server, "image", cloud, secrets=cloud.secrets, env=cloud.env)
    layers = modal_server.requests("ImageGetOrCreate")
    commands = [line for layer in layers for line in layer["image"].get("dockerfile_commands", ())]
    assert any(line.startswith("FROM ubuntu:24.04@sha256:") for line in commands)
    assert any("install-python.sh /opt/ftl-build/requirements-cpu.txt" in line for line in commands)
    assert "RUN pip list" in commands
    assert {layer["builder_version"] for layer in layers} == {"2025.06"}
    sent = modal_server.requests("SecretGetOrCreate")[-1]
    assert sent["env_dict"] == {"HF_TOKEN": "never-in-an-image"}
    assert sent["object_creation_type"] == "OBJECT_CREATION_TYPE_ANONYMOUS_OWNED_BY_APP"
    for rpc in ("ImageGetOrCreate", "FunctionCreate", "AppPublish", "MountGetOrCreate"):
        assert "never-in-an-image" not in str(modal_server.requests(rpc)), rpc


def test_private_image_is_pulled_with_the_secret_on_modal(
    modal_server: ModalEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the secret's name: the password is on Modal, and nothing that goes there has it, whatever this shell has."""
    monkeypatch.setenv("REGISTRY_PASSWORD", "of-this-shell")
    modal_server.add_secret("ghcr", {"REGISTRY_USERNAME": "me", "REGISTRY_PASSWORD": "kept-on-modal"})
    request = deployed(modal_server, "pulled", ModalCloud(image=DIGEST, registry_secret="ghcr"))
    layers = [layer["image"] for layer in modal_server.requests("ImageGetOrCreate")]
    pulled = next(i for i in layers if f"FROM {DIGEST}" in i.get("dockerfile_commands", ()))
    config = pulled["image_registry_config"]
    assert config["registry_auth_type"] == "REGISTRY_AUTH_TYPE_STATIC_CREDS"
    asked = [one for one in modal_server.requests("SecretGetOrCreate") if one.get("deployment_name") == "ghcr"]
    assert asked
    assert not any(one.get("env_dict") for one in asked)
    assert modal_server.state["secrets"][config["secret_id"]]["name"] == "ghcr"
    assert config["secret_id"] not in request["function"].get("secret_ids", ()), "the training does not get it"
    for rpc in modal_server.counts:
        sent = str(modal_server.requests(rpc))
        assert "kept-on-modal" not in sent, rpc
        assert "of-this-shell" not in sent, rpc


def test_code_is_mounted_and_not_baked(modal_server: ModalEmulator) -> None:
    deployed(modal_server, "mounted", ModalCloud())
    files = [f["filename"] for request in modal_server.requests("MountGetOrCreate") for f in request.get("files", ())]
    assert "/root/modal_entry.py" in files
    assert Path(entry_file()).name == "modal_entry.py"
