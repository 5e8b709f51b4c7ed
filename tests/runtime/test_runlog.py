"""What reaches log.txt of what processes write into their pipes, whoever in them writes it and however they end."""

import fcntl
import os
import resource
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ftl import redact
from ftl_runtime.runlog import RunLog


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(redact, "_named", set())
    monkeypatch.setattr(redact, "_values", set())
    monkeypatch.setenv("MY_TOKEN", "canary-of-18-chars")
    return "canary-of-18-chars"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


def wait_until(is_so: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


def write(fd: int, data: bytes) -> None:
    """Write, and return when the other end has taken it out."""
    os.write(fd, data)
    wait_until(lambda: fcntl.ioctl(fd, termios.FIONREAD, b"\0\0\0\0") == b"\0\0\0\0")


def test_secret_in_two_pieces_from_two_processes_at_once_is_found(path: Path) -> None:
    log = RunLog(path)
    first, second = log.pipe(), log.pipe()
    write(first, b"one canary-")
    write(second, b"two canary-of-18")
    write(first, b"of-18-chars!\n")
    write(second, b"-chars.\nand canary")
    os.close(first)
    os.close(second)
    log.drain()
    assert sorted(path.read_text().splitlines()) == ["and canary", "one ***!", "two ***."]


def test_killed_process_and_its_children_lose_no_word(path: Path) -> None:
    log = RunLog(path)
    # 5 MB, more than a pipe holds; then a program of its own, then its last words, without an end of the line.
    code = (
        "import os, signal, subprocess\n"
        "for i in range(50_000): os.write(1, b'%099d\\n' % i)\n"
        "subprocess.run(['sh', '-c', 'echo $MY_TOKEN'])\n"
        "os.write(2, b'last ' + os.environb[b'MY_TOKEN'])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    fd = log.pipe()
    process = subprocess.Popen([sys.executable, "-c", code], stdout=fd, stderr=fd)
    os.close(fd)
    process.wait(60)
    log.drain()
    lines = path.read_text().split("\n")
    assert [int(line) for line in lines[:50_000]] == list(range(50_000))
    assert lines[50_000:] == ["***", "last ***"]


def test_progress_bar_is_shown_while_its_line_goes_on_and_a_secret_is_not(path: Path) -> None:
    log = RunLog(path)
    fd = log.pipe()
    write(fd, b"\r10% of x\r20% of x\rdone soon, with canary-of")
    wait_until(lambda: path.read_bytes() == b"\r10% of x\r20% of x\rdone soon, with ")
    write(fd, b"-18-chars\n")
    wait_until(lambda: path.read_bytes() == b"\r10% of x\r20% of x\rdone soon, with ***\n")
    os.close(fd)


def test_line_without_end_and_bytes_that_are_no_text_come_through(path: Path) -> None:
    log = RunLog(path)
    fd = log.pipe()
    content = b"\xff\xfe" + b"0123456789" * 100_000 + "\u00fc".encode()
    subprocess.run([sys.executable, "-c", f"import os; os.write(1, {content[:20]!r})"], stdout=fd, check=True)
    for start in range(20, len(content), 1 << 16):
        os.write(fd, content[start : start + (1 << 16)])
    os.close(fd)
    log.drain()
    assert path.read_bytes() == content


def test_words_of_a_process_that_lives_wait_until_the_end(path: Path) -> None:
    log = RunLog(path)
    fd = log.pipe()
    write(fd, b"it is canary-of")
    log.drain()
    assert path.read_text() == "it is "
    write(fd, b"-18-chars")
    log.close()
    assert path.read_text() == "it is ***"
    os.close(fd)


def test_key_of_several_lines_is_found_across_reads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "-begin-\nabc\n-end-")
    log = RunLog(path)
    fd = log.pipe()
    write(fd, b"the key:\n-begin-\nabc\n")
    write(fd, b"-end-\n")
    os.close(fd)
    log.drain()
    assert path.read_text() == "the key:\n***\n"


def test_full_disk_stops_no_writer_and_is_told_when_there_is_room(path: Path) -> None:
    log = RunLog(path)
    fd = log.pipe()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8, hard))
    try:
        write(fd, b"12345\n")
        write(fd, b"x" * 65_535 + b"\n")
        log.drain()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    write(fd, b"on\n")
    os.close(fd)
    log.drain()
    assert path.read_text() == "12345\nxx\n[65534 bytes of output are missing here: the disk was full]\non\n"


def test_many_small_pieces_cost_little(path: Path) -> None:
    log = RunLog(path)
    fd = log.pipe()
    began = time.process_time()
    for step in range(200):  # as many as a second's worth of a chatty trainer
        os.write(fd, b"step %d\n" % step)
    os.close(fd)
    log.drain()
    assert time.process_time() - began < 0.25
    assert path.read_text().count("\n") == 200
