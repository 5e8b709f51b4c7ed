"""The cloud files of Modal that come with ftl: each can be loaded, also with all it explains switched on."""

import re
from pathlib import Path

import pytest

from ftl.backends.modal import ModalBackend
from ftl.backends.modal_cloud import ModalCloud
from ftl.cloudfile import load_cloud

FOLDER = Path(__file__).parents[2] / "cloud_templates"
TEMPLATES = sorted(FOLDER.glob("modal*.yml"))


def test_there_is_one_for_each_use() -> None:
    kinds = ["modal", "modal-cpu-preprocess", "modal-multi-gpu", "modal-multi-node"]
    assert sorted(path.stem for path in TEMPLATES) == kinds


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_template_is_a_valid_cloud_file(path: Path) -> None:
    backend = load_cloud(path)
    assert isinstance(backend, ModalBackend)
    assert backend.cloud.num_gpus in (1, 8)


def test_template_explains_every_key() -> None:
    text = (FOLDER / "modal.yml").read_text()
    others = "".join(path.read_text() for path in TEMPLATES)
    known = set(ModalCloud.model_fields) - {"processes", "max_attempts"}
    assert not [key for key in sorted(known) if f"{key}:" not in others and f"`{key}`" not in text]


def test_explained_lines_are_valid_when_they_are_switched_on(tmp_path: Path) -> None:
    lines = (FOLDER / "modal.yml").read_text().splitlines()
    is_key = [re.match(r"# [a-z_]+:( |$)", line) is not None for line in lines]
    switched = []
    for line, is_it in zip(lines, is_key, strict=True):
        is_below = line.startswith("#   ") and not line.startswith("#   pip") and not line.startswith("#   ftl")
        switched.append(line[2:] if is_it or is_below else line)
    text = "\n".join(line for line in switched if not line.startswith(("gpu: A100", "gpu_count")))
    path = tmp_path / "modal.yml"
    path.write_text(text.replace("image: cuda\n", f"image: a.b/c:1@sha256:{'a' * 64}\n"))
    cloud = load_cloud(path).cloud
    assert cloud.gpu_strings == ("H100", "A100-80GB")
    assert (cloud.timeout, cloud.prepare, cloud.modal_secrets[0].keys) == (3 * 86400, False, ("HF_TOKEN",))
    assert (cloud.disk, cloud.volumes[0].mount, cloud.env) == (1024, "/data", {"WANDB_PROJECT": "cats"})
