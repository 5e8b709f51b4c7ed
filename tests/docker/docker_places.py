"""What the Docker tests share that is no fixture."""

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from ftl import image
from ftl.backends.docker import DockerBackend
from ftl.backends.secret_files import memory_folder
from ftl.contract import Bundle, JobHandle, JobSpec, JobState

BASE = "ftl-test/base:bookworm"
PORT = int(os.environ.get("FTL_REGISTRY_PORT", "5055"))
HERE = Path(__file__).parent
# Debian's client first: the one that can use the BuildKit inside its own daemon.
DEBIAN_CLIENT = "/usr/bin/docker"
Make = Callable[..., DockerBackend]


def unavailable(reason: str) -> None:
    """Skip, or fail where nothing may be skipped."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}; run .ci/engine.sh")
    pytest.skip(reason)


def build_options() -> dict[str, Path]:
    """What a build on this machine needs besides the network: more certificates, torch's CPU wheel if it is here."""
    options = {}
    certificates = os.environ.get("SSL_CERT_FILE", "")
    if certificates and Path(certificates).is_file():
        options["ca"] = Path(certificates)
    for folder in os.environ.get("PIP_FIND_LINKS", "").split():
        if any(Path(folder).glob("torch-*+cpu-*.whl")):
            options["wheels"] = Path(folder)
    return options


def build_cpu_image() -> image.BuiltImage:
    """The image `cpu` on the test base."""
    lines: list[str] = []
    client = DEBIAN_CLIENT if Path(DEBIAN_CLIENT).exists() else None
    try:
        return image.build("cpu", base=BASE, client=client, on_line=lines.append, **build_options())
    except Exception:
        print("\n".join(lines[-60:]))
        raise


class Workplace:
    """Bundle and run directory of one test, and specs that fit them."""

    def __init__(self, folder: Path) -> None:
        self.run_id = f"t{uuid.uuid4().hex[:10]}"
        self.run_dir = folder / "run"
        self.run_dir.mkdir()
        bundle = folder / "bundle"
        shutil.copytree(HERE / "stub", bundle / "code", ignore=shutil.ignore_patterns("__pycache__"))
        self.bundle = Bundle(sha256="0" * 64, path=str(bundle), size_bytes=1)

    def spec(self, backend: DockerBackend, *, mode: str = "done", **fields: object) -> JobSpec:
        values = {**backend.spec_fields(), "env": {"FTL_STUB": mode}, **fields}
        return JobSpec.model_validate({"run_id": self.run_id, **values})


def ended(backend: DockerBackend, handle: JobHandle, timeout_s: float = 60) -> JobState:
    return wait_for(backend, handle, "ended", timeout_s)


def wait_for(backend: DockerBackend, handle: JobHandle, phase: str, timeout_s: float = 60) -> JobState:
    deadline = time.monotonic() + timeout_s
    while (state := backend.status(handle)).phase != phase:
        assert time.monotonic() < deadline, state
        time.sleep(0.05)
    return state


def started(backend: DockerBackend, handle: JobHandle, timeout_s: float = 60) -> None:
    """Wait until the stand-in has written its facts, thus has its signal handler."""
    deadline = time.monotonic() + timeout_s
    while not backend.read(handle, "facts.json", 0).endswith(b"}"):
        assert time.monotonic() < deadline, backend.status(handle)
        time.sleep(0.05)


def facts(place: Workplace) -> dict[str, object]:
    return json.loads((place.run_dir / "facts.json").read_text())


def secret_folders(place: Workplace) -> list[Path]:
    folder = memory_folder()
    assert folder is not None
    return list(folder.glob(f"ftl-secrets-*{place.run_id}*"))
