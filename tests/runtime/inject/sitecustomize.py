"""Faults at exact points of a trainer: loaded by Python at its start where a test puts this directory on PYTHONPATH.

FTL_TEST_INJECT is a JSON list. Each entry acts when an event is emitted that matches `event` and, if given, `step` or
`state`: {"event": "step", "step": 3, "signal": 9} sends a signal to the trainer itself, "to": "supervisor" to its
parent, "sleep": 0.05 waits, "run": "echo a" runs a command, "oom_times": 2 raises torch's error for GPU memory so
often, counted in the file "marker". {"import": "torch", "signal": 15} acts when that module is imported,
{"start": true} before any code of ours, and with "stand_in": {...} in the place of all of it: see stand_in.py. One with
"rank": "1" acts in that rank alone.
"""

import builtins
import json
import os
import subprocess
import sys
import time
from pathlib import Path


def _act(entry):
    time.sleep(entry.get("sleep", 0))
    if entry.get("oom_times"):
        import torch

        marker = Path(entry["marker"])
        times = marker.stat().st_size if marker.exists() else 0
        if times < entry["oom_times"]:
            marker.write_text("." * (times + 1))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    if "run" in entry:
        subprocess.run(entry["run"], shell=True, check=True)
    if "signal" in entry:
        os.kill(os.getppid() if entry.get("to") == "supervisor" else os.getpid(), entry["signal"])
        time.sleep(entry.get("after", 0))
    if "stand_in" in entry:
        import stand_in

        stand_in.main(**entry["stand_in"])


def _patch_events(entries):
    from ftl_runtime import events

    emit = events.EventLog.emit

    def emit_then_act(self, event, data):
        emit(self, event, data)
        for entry in entries:
            if entry.get("event") == event and all(entry.get(k, data.get(k)) == data.get(k) for k in ("step", "state")):
                _act(entry)

    events.EventLog.emit = emit_then_act


def _patch_import(entries):
    real = builtins.__import__

    def act_then_import(name, *args, **kwargs):
        for entry in entries:
            if entry["import"] == name and not entry.get("done") and name not in sys.modules:
                entry["done"] = True
                _act(entry)
        return real(name, *args, **kwargs)

    builtins.__import__ = act_then_import


if "FTL_TEST_INJECT" in os.environ and "FTL_SUPERVISOR_PID" in os.environ:
    _rank = os.environ.get("RANK", "0")
    _entries = [entry for entry in json.loads(os.environ["FTL_TEST_INJECT"]) if entry.get("rank", _rank) == _rank]
    for _entry in _entries:
        if "start" in _entry:
            _act(_entry)
    _patch_events([entry for entry in _entries if "event" in entry])
    if _imports := [entry for entry in _entries if "import" in entry]:
        _patch_import(_imports)
