"""The image of a job on Modal as a list of layers. Pure, and always the same, so that Modal finds it built already.

Modal's builder is not BuildKit, so images/Dockerfile is followed step by step rather than handed over. What is
published is pulled by its digest instead.
"""

import re
from typing import Literal

from ftl.image import Recipe, recipe, resolve
from ftl.packaged import packaged
from ftl.section import Section

BUILDER_VERSION = "2025.06"
"""Modal's own layers, pinned: without it they are those that a workspace happens to be set to."""
_BUILD_DIR = "/opt/ftl-build"


class Layer(Section):
    """One step on top of the base."""

    kind: Literal["file", "run", "env", "dockerfile"]
    source: str = ""
    """file: a file of images/."""
    target: str = ""
    """file: where it goes."""
    lines: tuple[str, ...] = ()
    """run: shell commands; dockerfile: lines of a Dockerfile."""
    env: dict[str, str] = {}


class ImagePlan(Section):
    """What an image on Modal is made of."""

    base: str
    """repository:tag@sha256."""
    setup: tuple[str, ...] = ()
    """Lines of a Dockerfile right after FROM: what gives the base a Python."""
    layers: tuple[Layer, ...] = ()
    registry_secret: str | None = None


def plan_image(image: str, extra: tuple[str, ...], registry_secret: str | None) -> ImagePlan:
    """How Modal gets `image`, a name of images.lock.toml or a reference with a digest, with `extra` lines on top."""
    resolved = resolve(image)
    on_top = (Layer(kind="dockerfile", lines=extra),) if extra else ()
    if resolved.reference is not None:
        return ImagePlan(base=resolved.reference, layers=on_top, registry_secret=registry_secret)
    made_from = recipe(image)
    return ImagePlan(base=made_from.base, setup=_setup(), layers=(*_layers(made_from), *on_top))


def _setup() -> tuple[str, ...]:
    """The Dockerfile's stage `system`, and the Python that Modal looks for on PATH."""
    return (
        "USER root",
        "ENV DEBIAN_FRONTEND=noninteractive",
        *_stage("system", "RUN"),
        "RUN mkdir -p /wheels && python3 -m venv /opt/ftl",
        "ENV PATH=/opt/ftl/bin:$PATH VIRTUAL_ENV=/opt/ftl UV_PYTHON_DOWNLOADS=never",
    )


def _layers(made_from: Recipe) -> tuple[Layer, ...]:
    """The stages `python`, `flash-attn` and `runtime`."""
    lock = f"{_BUILD_DIR}/{made_from.lock}"
    index = f"TORCH_INDEX={made_from.torch_index} " if made_from.torch_index else ""
    layers = [
        Layer(kind="file", source="install-python.sh", target=f"{_BUILD_DIR}/install-python.sh"),
        Layer(kind="file", source=made_from.lock, target=lock),
        Layer(kind="run", lines=(f"{index}bash {_BUILD_DIR}/install-python.sh {lock}",)),
    ]
    if dict(made_from.args).get("FLASH_ATTN") == "1":
        wheel = "pip install --no-build-isolation --no-deps --require-hashes -r"
        build = f"CUDA_HOME=/usr/local/cuda FLASH_ATTENTION_FORCE_BUILD=TRUE {wheel} {_BUILD_DIR}/flash-attn.txt"
        layers += [
            Layer(kind="file", source="flash-attn.txt", target=f"{_BUILD_DIR}/flash-attn.txt"),
            Layer(kind="run", lines=(build,)),
        ]
    return (
        *layers,
        Layer(kind="file", source="selftest.py", target="/opt/ftl/selftest.py"),
        Layer(kind="run", lines=(f"cd / && FTL_CUDA={made_from.cuda} python /opt/ftl/selftest.py",)),
        Layer(kind="env", env={"PYTHONUNBUFFERED": "1", "FTL_CUDA": made_from.cuda, "FTL_RECIPE": made_from.sha256}),
    )


def _stage(name: str, instruction: str) -> tuple[str, ...]:
    """The instructions of that kind in a stage of the Dockerfile, each on one line."""
    text = (packaged("images") / "Dockerfile").read_text()
    match = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM )", text, re.DOTALL | re.MULTILINE)
    assert match is not None, f"images/Dockerfile has no stage {name}"
    body = "\n".join(line for line in match[1].splitlines() if not line.startswith("#"))
    joined = re.sub(r"\s*\\\n\s*", " ", body)
    return tuple(line for line in joined.splitlines() if line.startswith(f"{instruction} "))
