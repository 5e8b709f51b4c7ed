"""SkyPilot's environment is found, and a worker that is wrong, slow or dead is one sentence."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from ftl.backends import sky_client
from ftl.backends.sky_client import Sky, SkyError, interpreter
from ftl.errors import BackendError

FAKE = """
import json, os, sys, time
kept = []
for line in sys.stdin:
    order = json.loads(line)
    answers = {answers}
    if order["op"] == "die":
        os._exit(1)
    if order["op"] == "sleep":
        time.sleep(60)
    if order["op"] == "late":
        kept.append(order)
        for late in reversed(kept if len(kept) == 3 else []):
            print(json.dumps({{"id": late["id"], "value": late["own"]}}), flush=True)
        continue
    print(json.dumps({{"id": order["id"], **answers[order["op"]]}}), flush=True)
"""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Sky]:
    """A worker that gives these answers, in the place of SkyPilot's Python."""

    def make(version: str = "0.14.1", **answers: object) -> Sky:
        hello = {"value": {"version": version}}
        program = tmp_path / "fake.py"
        program.write_text(FAKE.format(answers=repr({"hello": hello, **answers})))
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\nexec {sys.executable} {program}\n")
        python.chmod(0o755)
        monkeypatch.setenv("FTL_SKYPILOT_PYTHON", str(python))
        return Sky()

    return make


def test_another_minor_version_is_refused_with_what_to_install(worker: Callable[..., Sky]) -> None:
    with pytest.raises(BackendError, match=r"SkyPilot 0\.13\.2: must be 0\.14.*pipx install"):
        worker("0.13.2").ask("find")


def test_environment_without_skypilot_is_one_sentence(worker: Callable[..., Sky]) -> None:
    broken = {"error": {"kind": "ModuleNotFoundError", "text": "No module named 'sky'"}}
    with pytest.raises(BackendError, match=r"No module named 'sky'.*cannot import SkyPilot.*pipx"):
        worker(hello=broken).ask("find")


def test_what_skypilot_raises_is_a_sentence_with_its_kind(worker: Callable[..., Sky]) -> None:
    sky = worker(find={"error": {"kind": "ConnectionError", "text": "refused"}})
    with pytest.raises(SkyError, match=r"API server: refused.*sky api start") as caught:
        sky.ask("find")
    assert (caught.value.kind, caught.value.is_unreachable) == ("ConnectionError", True)


def test_worker_that_does_not_answer_is_ended_and_the_next_question_has_a_fresh_one(
    worker: Callable[..., Sky],
) -> None:
    sky = worker(find={"value": 1})
    with pytest.raises(BackendError, match=r"`sleep`: no answer in 0\.2 s"):
        sky.ask("sleep", limit_s=0.2)
    assert sky.ask("find") == 1
    with pytest.raises(BackendError, match="ended without an answer"):
        sky.ask("die")
    assert sky.ask("find") == 1
    sky.close()


def test_first_answer_that_takes_long_is_explained_once(
    worker: Callable[..., Sky], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that has to start takes up to a minute."""
    monkeypatch.setattr(sky_client, "_SILENCE_S", 0.1)
    sky = worker()
    with ThreadPoolExecutor(3) as threads:
        for number in range(3):
            answer = threads.submit(sky.ask, "late", limit_s=60, own=number)
            wait([answer], timeout=0.3)
    sky.close()
    assert [record.message.partition(",")[0] for record in caplog.records] == ["waiting for SkyPilot's API server"]


def test_threads_that_ask_at_the_same_time_get_each_its_own_answer(worker: Callable[..., Sky]) -> None:
    sky = worker()
    with ThreadPoolExecutor(3) as threads:
        answers = threads.map(lambda number: sky.ask("late", limit_s=60, own=number), range(3))
        assert list(answers) == [0, 1, 2]
    sky.close()


def test_python_is_that_of_the_variable_else_that_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sky_client.sys, "prefix", str(tmp_path))  # without .venv/sky
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("FTL_SKYPILOT_PYTHON", raising=False)
    with pytest.raises(BackendError, match=r"SkyPilot is not installed.*pipx install"):
        interpreter()
    (tmp_path / "sky").write_text(f"#!{sys.executable}\nprint()\n")
    (tmp_path / "sky").chmod(0o755)
    assert interpreter() == Path(sys.executable)
    monkeypatch.setenv("FTL_SKYPILOT_PYTHON", str(tmp_path / "none"))
    with pytest.raises(BackendError, match="FTL_SKYPILOT_PYTHON"):
        interpreter()
