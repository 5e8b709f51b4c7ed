"""What a machine tells about a run through the output of its job, and what is made of it here."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ftl.backends.skypilot_mirror import Mirror
from ftl.backends.skypilot_plan import stop_file
from ftl.contract import ExitRecord, JobSpec, Paths

STANDIN = Path(__file__).parents[1] / "backends/standin"
ENTRY = Path(__file__).parents[2] / "runtime/ftl_runtime/sky_entry.py"
MARK = "@ftl:0123456789ab"


class Machine:
    """A machine of its own, as far as the entry can tell: a home, a bundle and an order."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home"
        code = self.home / ".ftl/bundles/b/code/ftl_runtime"
        code.mkdir(parents=True)
        for source in (STANDIN / "ftl_runtime").glob("*.py"):
            (code / source.name).write_text(source.read_text())
        says = "print('attempt', job['attempt'], flush=True)  # as the supervisor relays its log\n"
        with_log = (code / "__main__.py").read_text().replace("signal.signal(", f"{says}signal.signal(", 1)
        (code / "__main__.py").write_text(with_log)
        (code / "sky_entry.py").write_text(ENTRY.read_text())
        self.run_dir = self.home / ".ftl/runs/r"

    def start(
        self, what: str, *, attempt: int = 1, carried: str | None = None, **env: str
    ) -> "subprocess.Popen[bytes]":
        paths = Paths(bundle="~/.ftl/bundles/b", run="~/.ftl/runs/r", cache="~/.ftl/cache")
        job = JobSpec(run_id="r", attempt=attempt, env={"STANDIN": what, "COLOUR": "blue"}, paths=paths)
        order = {"mark": MARK, "job": json.loads(job.model_dump_json())}
        order |= {} if carried is None else {"carried": carried}
        process = subprocess.Popen(
            [sys.executable, "-m", "ftl_runtime.sky_entry"],
            env={**os.environ, "HOME": str(self.home), "PYTHONPATH": str(self.home / ".ftl/bundles/b/code"), **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(order).encode())
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, what: str, **keys: Any) -> tuple[int, str]:
        """The exit code that SkyPilot sees, and the output."""
        process = self.start(what, **keys)
        output = process.communicate(timeout=60)[0].decode()
        return process.returncode, output

    def tell_to_stop(self) -> None:
        (self.home / "sky_workdir").mkdir()
        (self.home / "sky_workdir" / stop_file(MARK)).touch()

    def wait_for(self, name: str) -> None:
        give_up = time.monotonic() + 30
        while not (self.run_dir / name).exists():
            assert time.monotonic() < give_up, f"no {name}"
            time.sleep(0.02)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    yield Machine(tmp_path)


def mirror(tmp_path: Path, *outputs: str) -> Mirror:
    found = Mirror(tmp_path / "here", MARK)
    for output in outputs:
        found.begin_again()
        found.feed(output)
    return found


def shown_by_skypilot(output: str) -> str:
    return "".join(f"\x1b[36m(ftl-r-1, pid=4242)\x1b[0m {line}\n" for line in output.splitlines())


def test_files_of_a_run_arrive_whole_through_the_output(machine: Machine, tmp_path: Path) -> None:
    code, output = machine.run("done")
    seen = mirror(tmp_path, shown_by_skypilot(output))
    assert code == 0
    assert seen.file("events.jsonl") == (machine.run_dir / "events.jsonl").read_bytes()
    assert seen.file("result.json") == (machine.run_dir / "result.json").read_bytes()
    assert json.loads(seen.file_of_start("exit.json", seen.newest_start))["exit_code"] == 0
    assert b"attempt 1" in seen.file("log.txt")
    assert MARK.encode() not in seen.file("log.txt")


def test_output_that_is_shown_again_is_taken_in_once(machine: Machine, tmp_path: Path) -> None:
    output = machine.run("done")[1]
    once, twice = mirror(tmp_path, output), mirror(tmp_path, output[: len(output) // 2], output, output)
    for name in ("events.jsonl", "log.txt", "result.json", "exit.json"):
        assert twice.file(name) == once.file(name)


def test_what_was_seen_is_still_there_when_the_machine_is_gone(machine: Machine, tmp_path: Path) -> None:
    seen = mirror(tmp_path, machine.run("done")[1])
    seen.save()
    again = Mirror(tmp_path / "here", MARK)
    for name in ("events.jsonl", "log.txt", "result.json", "exit.json"):
        assert again.file(name) == seen.file(name)
    assert again.newest_start == seen.newest_start


def test_second_machine_adds_its_events_after_those_of_the_first(tmp_path: Path) -> None:
    first, second = Machine(tmp_path / "1"), Machine(tmp_path / "2")
    seen = mirror(tmp_path, first.run("done")[1], second.run("done")[1])
    expected = b"".join((one.run_dir / "events.jsonl").read_bytes() for one in (first, second))
    assert seen.file("events.jsonl") == expected


def test_second_start_in_the_same_directory_tells_no_event_twice(machine: Machine, tmp_path: Path) -> None:
    seen = mirror(tmp_path, machine.run("done")[1], machine.run("done", attempt=2)[1])
    assert seen.file("events.jsonl") == (machine.run_dir / "events.jsonl").read_bytes()


def test_verdict_of_an_earlier_start_is_not_that_of_the_newest(machine: Machine, tmp_path: Path) -> None:
    first = machine.run("done")[1]
    later = f'{MARK} {{"start": 4102444800.0}}\nhello\n'
    seen = mirror(tmp_path, first, later)
    assert seen.file_of_start("exit.json", seen.newest_start) == b""


def test_torn_and_foreign_lines_are_left_out(tmp_path: Path) -> None:
    event = json.dumps({"file": "events.jsonl", "id": "1.5-aa", "offset": 0, "line": "one"})
    gap = json.dumps({"file": "events.jsonl", "id": "1.5-aa", "offset": 9, "line": "three"})
    seen = mirror(tmp_path, f"{MARK} {event}\n{MARK} {gap}\n{MARK} {event[:20]}\n@ftl:ffff {event}\n")
    assert seen.file("events.jsonl") == b"one\n"
    assert seen.file("log.txt") == f"@ftl:ffff {event}\n".encode()


def test_crash_is_told_with_its_own_code(machine: Machine, tmp_path: Path) -> None:
    code, output = machine.run("crash")
    seen = mirror(tmp_path, output)
    assert code == 70
    assert json.loads(seen.file("exit.json"))["cause"] == "crash"


def test_preempted_job_ends_with_the_code_that_skypilot_starts_again(machine: Machine) -> None:
    process = machine.start("hang")
    machine.wait_for("events.jsonl")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 75


def test_job_that_was_told_to_stop_is_not_started_again(machine: Machine, tmp_path: Path) -> None:
    process = machine.start("hang")
    machine.wait_for("events.jsonl")
    machine.tell_to_stop()
    output = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 1
    assert json.loads(mirror(tmp_path, output).file("exit.json"))["exit_code"] == 75


def test_job_that_was_told_to_stop_before_it_could_say_so_has_a_verdict(machine: Machine, tmp_path: Path) -> None:
    machine.tell_to_stop()
    code, output = machine.run("hang")
    verdict = ExitRecord.read_json(mirror(tmp_path, output).file("exit.json"))
    assert (code, verdict.attempt, verdict.exit_code, verdict.cause) == (1, 1, 75, "signal")


def test_other_machines_say_nothing(machine: Machine) -> None:
    code, output = machine.run("done", SKYPILOT_NODE_RANK="1")
    assert (code, output) == (0, "")


@pytest.mark.parametrize(("told", "expected"), [(True, 0), (False, 75)], ids=["with a verdict", "without one"])
def test_machine_that_has_told_the_first_one_how_it_ended_leaves_the_answer_to_it(
    machine: Machine, told: bool, expected: int
) -> None:
    """SkyPilot kills the others at once where one fails, and starts the run again where any of them ends with 75."""
    machine.run_dir.mkdir(parents=True)
    (machine.run_dir / "exit-1.json").write_text("of an earlier start")
    tells = f"pathlib.Path({str(machine.run_dir)!r}, 'exit-1.json').write_text('{{}}')\n" if told else ""
    supervisor = machine.home / ".ftl/bundles/b/code/ftl_runtime/__main__.py"
    supervisor.write_text(f"import pathlib, sys\n{tells}sys.exit(75)\n")
    code, _ = machine.run("done", SKYPILOT_NODE_RANK="1")
    assert code == expected


def test_run_from_another_place_finds_its_checkpoint_and_tells_only_what_is_new(
    machine: Machine, tmp_path: Path
) -> None:
    carried = machine.home / ".ftl/carried/r-1"
    here = tmp_path / "here"
    here.mkdir()
    checkpoint = carried / "checkpoints/checkpoint-5"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text("{}")
    (checkpoint / "weights").write_bytes(b"w")
    event = b'{"t": 1.0, "attempt": 1, "event": "step", "data": {"step": 5}}\n'
    for place in (carried, here):
        (place / "events.jsonl").write_bytes(event * 3)
        (place / "log.txt").write_bytes(b"50%\r100%\n")
    first = machine.run("done", carried="~/.ftl/carried/r-1")[1]
    assert (machine.run_dir / "checkpoints/checkpoint-5/weights").read_bytes() == b"w"
    (machine.run_dir / "checkpoints/checkpoint-5/weights").write_bytes(b"trained on")
    second = machine.run("done", attempt=2, carried="~/.ftl/carried/r-1")[1]
    assert (machine.run_dir / "checkpoints/checkpoint-5/weights").read_bytes() == b"trained on"
    there = (machine.run_dir / "events.jsonl").read_bytes()
    assert there.startswith(event * 3)
    seen = mirror(tmp_path, first, second)
    assert seen.file("events.jsonl") == there
    assert seen.file("log.txt").startswith(b"50%\r100%\n")
    assert json.dumps(event.decode().strip()) not in first, "the launcher has what came along"
