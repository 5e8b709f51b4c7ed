"""The cloud file of Modal: axolotl's as it is, and every limit of the server before the server is asked."""

import logging
from pathlib import Path

import pytest

from ftl.backends.modal import ModalBackend
from ftl.backends.modal_cloud import ModalCloud
from ftl.cloudfile import load_cloud
from ftl.errors import ConfigError

AXOLOTL = """
provider: modal
gpu: a100
gpu_count: 2
memory: 128
timeout: 86400
timeout_preprocess: 14400
memory_preprocess: 32
volumes:
  - name: axolotl-data
    mount: /workspace/data
env: [WANDB_PROJECT, WANDB_API_KEY, {FOO: 1}]
secrets: [HF_TOKEN]
dockerfile_commands: [RUN pip list]
spawn: true
"""


def load(tmp_path: Path, text: str) -> ModalCloud:
    path = tmp_path / "modal.yml"
    path.write_text(text)
    backend = load_cloud(path)
    assert isinstance(backend, ModalBackend)
    return backend.cloud


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, f"provider: modal\n{text}\n")
    return str(refused.value).removeprefix(f"{tmp_path}/")


def test_axolotls_cloud_file_is_read_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_PROJECT", "cats")
    monkeypatch.setenv("WANDB_API_KEY", "0123456789")
    with caplog.at_level(logging.WARNING, "ftl.cloud"):
        cloud = load(tmp_path, AXOLOTL)
    assert cloud.gpu_strings == ("A100-40GB:2",)
    assert (cloud.memory, cloud.memory_preprocess) == (128, 32)
    assert (cloud.timeout, cloud.timeout_preprocess) == (86400, 14400)
    assert [(one.name, one.mount) for one in cloud.volumes] == [("axolotl-data", "/workspace/data")]
    assert cloud.env == {"WANDB_PROJECT": "cats", "FOO": "1"}
    assert cloud.secrets == ("HF_TOKEN", "WANDB_API_KEY")
    assert cloud.dockerfile_commands == ("RUN pip list",)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "modal.yml:15: `spawn` has no effect" in told[0]
    assert "modal.yml:12: WANDB_API_KEY looks like a secret" in told[1]
    assert "0123456789" not in "".join(told) + repr(cloud)


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("h100", ("H100",)),
        ("H100:8", ("H100:8",)),
        ("h100!", ("H100!",)),
        ("a10", ("A10",)),
        ("a10g", ("A10",)),
        ("a100", ("A100-40GB",)),
        ("a100-40gb", ("A100-40GB",)),
        ("[h200:4, H100:4]", ("H200:4", "H100:4")),
        ("b200+", ("B200+",)),
        ("none", ()),
    ],
)
def test_gpu_is_what_modal_calls_it(tmp_path: Path, given: str, asked: tuple[str, ...]) -> None:
    quoted = given if given.startswith("[") else f"'{given}'"
    assert load(tmp_path, f"provider: modal\ngpu: {quoted}\n").gpu_strings == asked


def test_config_is_checked_against_the_weakest_kind_of_a_list() -> None:
    assert ModalCloud(gpu=("H100", "L4")).resources().gpu_kind == "L4"
    assert ModalCloud(gpu=("H100!",)).resources().gpu_kind == "H100"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu: h1000", "modal.yml:2: gpu = 'h1000': Modal has T4, A10,"),
        ("gpu: a10:8", "a container has at most 4 A10"),
        ("gpu: a100!", "only H100 may have a `!`"),
        ("gpu: [H100:2, H200:4]", "as many of each kind"),
        ("gpu: h100:4\ngpu_count: 2", "modal.yml:3: gpu_count = 2: `gpu` asks for 4"),
        ("gpu: a10\ngpu_count: 8", "at most 4"),
        ("attempt_timeout: 30h", "modal.yml:2: attempt_timeout = '30h': is over the 24h that Modal gives a container"),
        ("timeout_preprocess: 2d", "must be at most 86400"),
        ("startup_timeout: 2d", "must be at most 86400"),
        ("retries: 11", "modal.yml:2: retries = 11: must be at most 10"),
        ("disk: 100", "must be at least 512"),
        ("disk: 4000", "must be at most 3072"),
        ("memory: 400", "must be at most 336"),
        ("cpus: 65", "must be at most 64"),
        ("grace: 60", "must be at most 25"),
        ("nodes: 2", "needs exactly one kind of GPU"),
        ("gpu: [H100:8, H200:8]\nnodes: 2", "needs exactly one kind of GPU"),
        ("gpu: H100:8\nnodes: 33", "must be at most 32"),
        ("rdma: true", "joins several machines"),
        ("cloud: azure", "must be aws, gcp, oci or auto"),
        ("branch: main", "modal.yml:2: branch: ftl's own code goes with every run"),
        ("docker_tag: main-latest", "modal.yml:2: docker_tag: a tag may be another image tomorrow"),
        ("image: ghcr.io/a/b:latest", "a tag may be another image tomorrow"),
        (f"image: sha256:{'a' * 64}", "which Modal cannot pull"),
        ("env: [FTL_TEST_ABSENT]", "modal.yml:2: env.0 = FTL_TEST_ABSENT: not set in this shell"),
        ("env: {HUGGING_TOKEN: abcdef}", "looks like a secret"),
        ("secrets: [{NAME: value}]", "modal.yml:2: secrets: takes names alone"),
        ("volumes: [{name: a b, mount: /data}]", "volumes.0.name"),
        ("volumes: [{name: a, mount: data}]", "must be an absolute path"),
        ("volumes: [{name: a, mount: /data/../root}]", "must be an absolute path"),
        ("volumes: [{name: a, mount: /root/x}]", "must not be below"),
        ("volumes: [{name: a, mount: /d}, {name: b, mount: /d}]", "may stand there once"),
        ("volumes: [{name: ftl, mount: /d}]", "must be another volume"),
        ("volume: x\ncache_volume: x", "must be another volume"),
        ("gpus: H100", "unknown key"),
    ],
)
def test_what_the_server_would_refuse_is_refused_here_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    told = refusal(tmp_path, text)
    assert told.startswith("modal.yml:")
    assert message in told
    assert "\n" not in told


def test_run_may_be_longer_than_a_container(tmp_path: Path) -> None:
    assert load(tmp_path, "provider: modal\ntimeout: 14d\n").timeout == 14 * 86400
