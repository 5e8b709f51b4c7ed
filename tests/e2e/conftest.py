"""A command line as a user's shell would run it, and a finished run to look at."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commandline import Ftl
from project import make_project


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.torch)


@pytest.fixture(scope="session")
def ftl_program() -> str:
    return str(Path(sys.executable).parent / "ftl")


@pytest.fixture
def ftl(ftl_program: str, own_state: Path) -> Ftl:
    """Run `ftl ...` to its end."""

    def run(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> "subprocess.CompletedProcess[str]":
        env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", **environment}
        command = [ftl_program, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, timeout=240, check=False)

    return run


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The directory of a training of 40 steps."""
    make_project(tmp_path / "project", num_epochs=2)
    return tmp_path / "project"
