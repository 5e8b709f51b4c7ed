"""What Modal would be asked for, worked out from job, cloud section and bundle alone."""

import json
from pathlib import Path

import pytest

from ftl.backends import modal_volume
from ftl.backends.modal import ModalBackend
from ftl.backends.modal_app import entry_file, entry_module
from ftl.backends.modal_cloud import ModalCloud
from ftl.backends.modal_plan import CACHE_MOUNT, STATE_MOUNT, ModalPlan, app_name, plan
from ftl.contract import Bundle, JobSpec, Mount
from ftl.image import recipe

BUNDLE = Bundle(sha256="b" * 64, path="/here/bundle", size_bytes=1)


def planned(cloud: ModalCloud, **fields: object) -> ModalPlan:
    spec = JobSpec.model_validate({"run_id": "abcdef-cats", **ModalBackend(cloud).spec_fields(), **fields})
    return plan(spec, cloud, BUNDLE)


def test_gpu_run_is_prepared_without_a_gpu_first() -> None:
    first, second = planned(ModalCloud(gpu="h100", gpu_count=8, memory=256, memory_preprocess=32, disk=1024)).functions
    assert (first.name, first.gpu, first.memory_mib, first.timeout_s) == ("prepare", (), 32 * 1024, 3 * 3600)
    assert (second.name, second.gpu, second.memory_mib, second.disk_mib) == ("train", ("H100:8",), 262144, 1048576)
    assert (second.timeout_s, second.retries, second.max_containers) == (86400, 10, 1)


@pytest.mark.parametrize(
    ("cloud", "task"),
    [
        (ModalCloud(), "train"),
        (ModalCloud(gpu="H100", prepare=False), "train"),
        (ModalCloud(gpu="H100"), "merge"),
        (ModalCloud(gpu="H100"), "quantize"),
    ],
)
def test_one_function_where_there_is_nothing_to_prepare(cloud: ModalCloud, task: str) -> None:
    assert [function.name for function in planned(cloud, task=task).functions] == ["train"]


@pytest.mark.parametrize("task", ["merge", "merge-shards", "preprocess"])
def test_merging_and_preprocessing_pay_for_no_gpu(task: str) -> None:
    asked = planned(ModalCloud(gpu="H100:4"), task=task)
    assert (asked.functions[0].gpu, asked.job.resources.gpus) == ((), 0)
    assert planned(ModalCloud(gpu="H100:4"), task="quantize").functions[0].gpu == ("H100:4",)


def test_cluster_has_as_many_containers_as_machines() -> None:
    assert planned(ModalCloud(gpu="H100:8", nodes=2)).order["nodes"] == 2
    assert planned(ModalCloud(gpu="H100")).order["nodes"] == 1
    asked = planned(ModalCloud(gpu="H100:8", nodes=4, rdma=True)).functions[-1]
    assert (asked.nodes, asked.rdma, asked.max_containers) == (4, True, 4)


def test_order_is_small_and_nothing_of_it_is_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "not-to-be-seen")
    cloud = ModalCloud(gpu="H100", secrets=("HF_TOKEN",), env={"COLOUR": "blue"}, modal_secrets=("wandb",))
    asked = planned(cloud, secrets=cloud.secrets, env=cloud.env)
    assert len(json.dumps(asked.order)) < 1024
    assert "not-to-be-seen" not in asked.model_dump_json()
    assert [(one.name, one.keys) for one in asked.secrets] == [(None, ("HF_TOKEN",)), ("wandb", ())]
    assert asked.job.env == {"COLOUR": "blue"}


def test_large_directories_go_to_the_cache_volume_and_their_place_here_is_not_told() -> None:
    mount = Mount(name="model-12ab", source="/home/me/model", fingerprint="f" * 64)
    asked = planned(ModalCloud(gpu="H100"), mounts=[mount])
    assert asked.mounts == {"mounts/model-12ab": "/home/me/model"}
    assert asked.job.paths is not None
    assert asked.job.paths.mounts == {"model-12ab": "/ftl/cache/mounts/model-12ab"}
    assert "/home/me" not in asked.job.model_dump_json()


def test_image_of_a_name_follows_the_dockerfile_and_its_lock() -> None:
    image = planned(ModalCloud(dockerfile_commands=("RUN pip list",))).image
    made_from = recipe("cpu")
    assert image.base == made_from.base
    system = next(line for line in image.setup if "apt-get install" in line)
    assert "python3-venv" in system
    assert "\n" not in system
    assert image.setup[-1].startswith("ENV PATH=/opt/ftl/bin:$PATH")
    files = [layer.source for layer in image.layers if layer.kind == "file"]
    assert files == ["install-python.sh", "requirements-cpu.txt", "selftest.py"]
    (install, selftest) = [layer.lines[0] for layer in image.layers if layer.kind == "run"]
    assert install.startswith("TORCH_INDEX=https://download.pytorch.org/whl/cpu bash /opt/ftl-build/install-python.sh")
    assert selftest.endswith("python /opt/ftl/selftest.py")
    assert image.layers[-1].lines == ("RUN pip list",)


def test_image_with_a_digest_is_pulled_and_nothing_is_built() -> None:
    reference = f"ghcr.io/me/mine:1@sha256:{'c' * 64}"
    image = planned(ModalCloud(image=reference, registry_secret="ghcr")).image
    assert (image.base, image.setup, image.layers, image.registry_secret) == (reference, (), (), "ghcr")


def test_flash_attn_is_compiled_where_the_recipe_says_so() -> None:
    lines = [line for layer in planned(ModalCloud(image="cuda-flash")).image.layers for line in layer.lines]
    assert any("FLASH_ATTENTION_FORCE_BUILD" in line for line in lines)


def test_name_of_an_app_is_short_enough_for_modal() -> None:
    assert app_name("abcdef-cats") == "ftl-abcdef-cats"
    assert len(app_name("a" * 80)) < 64


def test_dry_run_shows_the_plan_without_asking_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODAL_SERVER_URL", "http://127.0.0.1:1")
    backend = ModalBackend(ModalCloud(gpu="H100"))
    spec = JobSpec.model_validate({"run_id": "abcdef-cats", **backend.spec_fields()})
    shown = backend.describe(spec, BUNDLE, Path("/nowhere"))
    assert shown["app"] == "ftl-abcdef-cats"
    assert [function["name"] for function in shown["functions"]] == ["prepare", "train"]


def test_what_launcher_and_container_say_twice_is_the_same() -> None:
    """The container's module can import nothing of ours, so it has its own copies."""
    entry = entry_module(entry_file())
    assert (str(entry.STATE), str(entry.CACHE)) == (STATE_MOUNT, CACHE_MOUNT)
    assert (entry.SEGMENT_BYTES, entry.SEGMENTS_DIR, entry.GROWING) == (
        modal_volume.SEGMENT_BYTES,
        modal_volume._SEGMENTS_DIR,
        modal_volume._GROWING,
    )
