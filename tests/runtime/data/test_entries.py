import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ftl_runtime.data.entries import entry

KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from ftl_runtime.data.entries import entry

def write(directory):
    (directory / "a").write_text("half")
    (directory / "manifest.json").write_text('{"bytes": {}, "facts": {}}')
    os.kill(os.getpid(), signal.SIGKILL)

entry(Path(sys.argv[1]), "key", write)
"""

LIVING_WRITER = """
import sys
from pathlib import Path
from ftl_runtime.data.entries import entry

def write(directory):
    print("writing", flush=True)
    sys.stdin.read()
    return {}

entry(Path(sys.argv[1]), "key", write)
"""


def start(script: str, cache_dir: Path, **pipes: Any) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen([sys.executable, "-c", script, str(cache_dir)], env=environment, **pipes)


def write(directory: Path) -> dict[str, Any]:
    (directory / "a").write_text("whole")
    return {"letters": 5}


def never(directory: Path) -> dict[str, Any]:
    raise AssertionError("it was there already")


def age(directory: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(directory, (then, then))


def test_entry_is_written_once(tmp_path: Path) -> None:
    assert not entry(tmp_path, "key", write).was_there
    found = entry(tmp_path, "key", never)
    assert (found.was_there, found.facts, (found.directory / "a").read_text()) == (True, {"letters": 5}, "whole")


def test_what_a_killed_writer_left_is_never_taken_for_whole(tmp_path: Path) -> None:
    assert start(KILLED_WRITER, tmp_path).wait() == -signal.SIGKILL
    (leftover,) = tmp_path.iterdir()
    assert leftover.suffix == ".tmp"
    found = entry(tmp_path, "key", write)
    assert (found.directory / "a").read_text() == "whole"


def test_what_a_killed_writer_left_is_collected(tmp_path: Path) -> None:
    assert start(KILLED_WRITER, tmp_path).wait() == -signal.SIGKILL
    (leftover,) = tmp_path.iterdir()
    age(leftover, 120)
    entry(tmp_path, "other", write)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_living_writer_is_left_alone(tmp_path: Path) -> None:
    process = start(LIVING_WRITER, tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.readline() == b"writing\n"
    (temporary,) = tmp_path.iterdir()
    age(temporary, 120)
    entry(tmp_path, "other", write)
    assert temporary.exists()
    process.stdin.close()
    assert process.wait() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "other"]


def test_leftover_older_than_a_day_goes_in_any_case(tmp_path: Path) -> None:
    leftover = tmp_path / "key.abc.tmp"
    leftover.mkdir()
    age(leftover, 25 * 3600)
    entry(tmp_path, "other", write)
    assert not leftover.exists()


def test_entry_that_was_moved_out_of_the_way_goes_after_a_day(tmp_path: Path) -> None:
    for name, hours in (("old.broken", 25), ("young.broken", 23)):
        (tmp_path / name / "entry").mkdir(parents=True)
        age(tmp_path / name, hours * 3600)
    entry(tmp_path, "key", write)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "young.broken"]
