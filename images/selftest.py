"""Checks an image from inside: every version equals the lock, everything imports, torch is the build it should be.

Run by the build (a mismatch fails it) and by `docker run IMAGE`. Needs no GPU; says whether one is seen.
"""

import importlib
import os
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LOCK = Path("/opt/ftl/lock.txt")
IMPORTS = {
    "torch": "torch",
    "transformers": "transformers",
    "peft": "peft",
    "accelerate": "accelerate",
    "safetensors": "safetensors",
    "tokenizers": "tokenizers",
    "jinja2": "jinja2",
    "numpy": "numpy",
    "pydantic": "pydantic",
    "pyyaml": "yaml",
    "huggingface-hub": "huggingface_hub",
    "bitsandbytes": "bitsandbytes",
    "datasets": "datasets",
    "deepspeed": "deepspeed",
    "liger-kernel": "liger_kernel",
    "torchao": "torchao",
    "wandb": "wandb",
    "mlflow-skinny": "mlflow",
    "tensorboard": "tensorboard",
    "trackio": "trackio",
    "sacrebleu": "sacrebleu",
    "ray": "ray",
    "flash-attn": "flash_attn",
}


def locked(text: str) -> dict[str, str]:
    """Name -> version of the requirements whose marker holds here."""
    from packaging.requirements import Requirement

    pins = {}
    for line in re.findall(r"^[a-z0-9][^\n]*", text, re.MULTILINE):
        requirement = Requirement(line.rstrip(" \\"))
        if requirement.marker is None or requirement.marker.evaluate():
            pins[requirement.name] = next(iter(requirement.specifier)).version
    return pins


def main() -> int:
    faults = []
    pins = locked(LOCK.read_text())
    for name, pin in pins.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "not installed"
        if found != pin:
            faults.append(f"{name}: the lock says {pin}, here is {found}")
    modules = {name: module for name, module in IMPORTS.items() if name in pins}
    if any(Path("/opt/ftl/lib").glob("python3*/site-packages/flash_attn")):
        modules["flash-attn"] = "flash_attn"
    for module in modules.values():
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever it is, it is the finding
            faults.append(f"import {module}: {type(error).__name__}: {error}")
    import torch

    cuda = os.environ.get("FTL_CUDA", "")
    built_for = torch.version.cuda or "cpu"
    if cuda and built_for != cuda:
        faults.append(f"torch is built for {built_for}, the image for {cuda}")
    for fault in faults:
        sys.stderr.write(f"self-test: {fault}\n")
    if not faults:
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        told = f"{len(pins)} packages as locked, torch {torch.__version__} for {built_for}, {gpus} GPUs seen"
        sys.stdout.write(f"self-test: {told}\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
