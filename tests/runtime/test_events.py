import json

from ftl_runtime.events import EventLog


def test_line_torn_by_a_kill_is_closed_off(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "step"}\n{"event": "st')
    EventLog(path, 2).emit("phase", {"name": "data"})
    lines = path.read_bytes().splitlines()
    assert lines[:2] == [b'{"event": "step"}', b'{"event": "st']
    last = json.loads(lines[2])
    assert (last["attempt"], last["event"], last["data"]) == (2, "phase", {"name": "data"})


def test_float_is_written_exactly_and_a_non_finite_one_as_null(tmp_path):
    path = tmp_path / "events.jsonl"
    EventLog(path, 1).emit("step", {"loss": 0.1 + 0.2, "grad_norm": float("inf")})
    assert json.loads(path.read_text())["data"] == {"loss": 0.30000000000000004, "grad_norm": None}
