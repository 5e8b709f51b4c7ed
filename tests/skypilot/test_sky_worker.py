"""What the worker makes of what SkyPilot knows of a name; SkyPilot itself answers in the tests beside this one."""

import ast
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ftl.backends import sky_worker

NAME = {"name": "ftl-quick-1", "request": None}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What there is: a managed job, a launch that has not ended, a cluster, a request."""
    found: dict[str, Any] = {"job": None, "launching": None, "cluster": None, "request": None}
    monkeypatch.setattr(sky_worker, "_managed", lambda name: found["job"])
    monkeypatch.setattr(sky_worker, "_launching", lambda name, managed: found["launching"])
    monkeypatch.setattr(sky_worker, "_cluster", lambda name: found["cluster"])
    monkeypatch.setattr(sky_worker, "_request", lambda request: found["request"])
    return found


@pytest.mark.parametrize("managed", [False, True])
def test_name_that_skypilot_does_not_know_is_to_be_launched(managed: bool, known: dict[str, Any]) -> None:
    assert sky_worker.find({**NAME, "managed": managed}) is None


def test_launch_that_is_under_way_is_found_before_its_half_made_cluster(known: dict[str, Any]) -> None:
    why = "Launching (pending: Resources)"
    known |= {"launching": "r-1", "cluster": SimpleNamespace(init_status_reason=why)}
    assert sky_worker.find({**NAME, "managed": False}) == {"request": "r-1"}
    assert sky_worker.state({**NAME, "managed": False}) == {"status": "LAUNCHING", "text": why}


def test_cluster_without_a_launch_is_found_and_not_launched_again(known: dict[str, Any]) -> None:
    known["cluster"] = object()
    assert sky_worker.find({**NAME, "managed": False}) == {}


def test_launch_that_a_server_has_forgotten_and_that_left_nothing_is_gone(known: dict[str, Any]) -> None:
    assert sky_worker.state({**NAME, "managed": False})["status"] == "GONE"


def test_launch_that_was_cancelled_is_neither_refused_nor_lost(known: dict[str, Any]) -> None:
    """The first would be the user's mistake, the second would be started again."""
    known |= {"request": {"id": "r-1", "status": "CANCELLED"}}
    assert sky_worker.state({**NAME, "managed": False})["status"] == "CANCELLED"


def test_log_goes_on_after_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """SkyPilot gives None where a job has said nothing for half a minute, as one that loads a model does."""
    lines = iter(["one\n", None, "two\n"])
    monkeypatch.setitem(sys.modules, "sky", SimpleNamespace(tail_logs=lambda *names, **how: lines))
    monkeypatch.setattr(sky_worker.threading, "Thread", Now)
    stream = sky_worker.Stream({**NAME, "managed": False})
    assert (stream.text, stream.ended) == (["one\n", "two\n"], "")


class Now:
    """A thread that has run when it is started."""

    def __init__(self, target: Callable[[], None], daemon: bool) -> None:
        self.start = target


def test_script_of_a_task_is_read_behind_the_header_of_a_managed_job() -> None:
    task = "name: ftl-quick-1\nrun: |\n  python -m train\n"
    assert sky_worker._script(task) == "python -m train\n"
    assert sky_worker._script("name: ftl-quick-1\n---\n" + task) == "python -m train\n"
    assert sky_worker._script(None) == sky_worker._script("run: [") == ""


def test_worker_needs_nothing_of_ftl_and_no_newer_python_than_skypilot_itself() -> None:
    source = Path(sky_worker.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    names = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [name for name in names if name.split(".")[0] == "ftl"]
