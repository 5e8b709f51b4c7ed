"""Those who look on: stacks of a hang, a profile, collected garbage, what the GPU says."""

import gzip
import json
import threading
import time
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from ftl_runtime.context import Device  # noqa: E402
from ftl_runtime.train.gpustats import GpuStats  # noqa: E402
from ftl_runtime.train.hang import FLOOR_S, HangWatch  # noqa: E402


def until(holds, timeout_s=30.0):
    end = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    assert holds()


def test_hang_shows_where_every_thread_stands_and_is_told_once(tmp_path):
    over, warnings = threading.Event(), []

    def stuck_in_a_collective():
        over.wait()

    threading.Thread(target=stuck_in_a_collective, daemon=True).start()
    log = tmp_path / "log.txt"
    with log.open("w") as file:
        watch = HangWatch(warnings.append, floor_s=0.3, log_fd=file.fileno())
        watch.start()
        try:
            until(lambda: warnings and "stuck_in_a_collective" in log.read_text())
            assert "test_hang_shows" in log.read_text()
            watch.beat()  # it went on after all, after a gap that makes the watch more patient
            assert watch.timeout_s >= 20 * 0.3
            assert len(warnings) == 1 and "nothing has happened for" in warnings[0]
        finally:
            watch.stop()
            over.set()


def test_hang_watch_waits_ten_minutes_or_twenty_of_the_longest_gaps():
    watch = HangWatch(lambda message: None)
    assert watch.timeout_s == FLOOR_S == 600
    watch._longest_s = 60.0
    assert watch.timeout_s == 1200


def test_profile_has_the_steps_asked_for_and_garbage_is_collected(make_attempt, monkeypatch):
    from ftl_runtime.train import watchers

    collected = []
    monkeypatch.setattr(watchers.GarbageCollector, "_collect", lambda self: collected.append(1))
    attempt = make_attempt(optim__max_steps=5, data__val_set_size=0, watch__profiler_steps=2, watch__gc_steps=2)
    attempt.train()
    assert attempt.events("profile")[0]["data"] == {"first_step": 2, "last_step": 3, "path": "profile"}
    with gzip.open(attempt.run / "profile" / "trace.json.gz") as file:
        names = [event.get("name") for event in json.load(file)["traceEvents"]]
    assert sum(name == "Optimizer.step#AdamW.step" for name in names) == 2
    assert len(collected) == 2


def test_gpu_stats_are_asked_once_a_second_and_go_without_the_library(monkeypatch):
    asked = []

    def no_library():
        asked.append("nvml")
        raise ModuleNotFoundError("pynvml does not seem to be installed")

    def mem_get_info():
        asked.append("memory")
        return 2**30, 4 * 2**30

    clock = iter([0.0, 0.0, 0.5, 1.5, 1.5])
    monkeypatch.setattr("ftl_runtime.train.gpustats.time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(torch.cuda, "mem_get_info", mem_get_info)
    monkeypatch.setattr(torch.cuda, "utilization", no_library)
    stats = GpuStats(Device("cuda", has_bf16=True, rank=0, num_ranks=1))
    assert [stats.read() for _ in range(3)] == [{"gpu_memory_gib": 3.0}] * 3
    assert asked == ["memory", "nvml", "memory"]


def test_without_a_gpu_there_is_nothing_to_say():
    assert GpuStats(Device("cpu", has_bf16=True, rank=0, num_ranks=1)).read() == {}
