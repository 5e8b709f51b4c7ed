"""The emulated Modal, proved with the bare modal client and its real container entrypoint."""

from collections.abc import Iterator
from types import ModuleType

import pytest
from modal_emulator import ModalEmulator

JOBS = """
import os, pathlib, sys, time

def hello(name):
    print(f"hello {name}", flush=True)
    print("a warning", file=sys.stderr, flush=True)
    pathlib.Path("/vol/said.txt").write_text(name)
    return {"name": name, "cwd": os.getcwd(), "env": dict(os.environ), "root": sorted(os.listdir("/"))}
"""


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A module that stands for a user's code."""
    directory = tmp_path_factory.mktemp("code")
    (directory / "emulator_jobs.py").write_text(JOBS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(directory))
        import emulator_jobs  # type: ignore[import-not-found]

        yield emulator_jobs


def test_deployed_function_runs_in_a_container_and_its_result_logs_and_files_come_back(
    modal_server: ModalEmulator, jobs: ModuleType
) -> None:
    import modal

    app = modal.App("emu-hello", include_source=False)
    volume = modal.Volume.from_name("hello", create_if_missing=True, version=2)
    image = modal.Image.debian_slim().env({"LAYER": "of the image"}).add_local_python_source("emulator_jobs")
    secret = modal.Secret.from_dict({"KEY": "of the secret"})
    app.function(name="hello", image=image, volumes={"/vol": volume}, secrets=[secret], single_use_containers=True)(
        jobs.hello
    )
    app.deploy(name="emu-hello")
    call = modal.Function.from_name("emu-hello", "hello").spawn("ann")
    result = call.get(timeout=30)
    assert result["name"] == "ann"
    assert result["cwd"] == "/root"
    assert result["env"]["LAYER"] == "of the image"
    assert result["env"]["KEY"] == "of the secret"
    assert not any(name.startswith("MODAL_TOKEN") for name in result["env"])
    assert [entry.message for entry in call.logs.stream()] == ["hello ann\n", "a warning\n"]
    modal_server.wait_until(lambda s: all(c["state"] == "dead" for c in s["containers"].values()), "containers end")
    assert modal_server.committed("hello") == {"said.txt": b"ann"}
    assert modal_server.unknown == {}
