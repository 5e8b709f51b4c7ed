"""What all tests share: a state and a cache directory of their own, and a CI in which nothing may be skipped."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh FTL_STATE_DIR; the token cache is shared by the session, as on a user's machine."""
    state = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("FTL_STATE_DIR", str(state))
    monkeypatch.setenv("FTL_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
    yield state


_LONGEST_FIRST = ("docker", "e2e", "skypilot", "modal", "runtime/parallel", "runtime/checkpoint", "runtime", "")
"""Folders of tests, so that no worker of pytest-xdist begins a long file when the others are done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    places = {item: item.path.relative_to(here).as_posix() for item in items}
    items.sort(key=lambda item: next(i for i, folder in enumerate(_LONGEST_FIRST) if places[item].startswith(folder)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:  # Any: xdist may not be there
    """With --dist loadfile, one worker for all tests with Docker, which share an engine and its images."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "docker" if nodeid.startswith("tests/docker/") else super()._split_scope(nodeid)

    return Scheduling(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("needs an NVIDIA GPU")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """In CI a skip is a failure, the GPU apart: what is missing there must be installed by .ci/run."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]  # pluggy's Result
    if (
        report.skipped
        and os.environ.get("CI") == "true"
        and not item.get_closest_marker("gpu")
        and not hasattr(report, "wasxfail")
    ):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
