"""What all tests share: a state and a cache directory of their own, and a CI in which nothing may be skipped."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh FTL_STATE_DIR; the token cache is shared by the session, as on a user's machine."""
    state = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("FTL_STATE_DIR", str(state))
    monkeypatch.setenv("FTL_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))
    yield state


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
