"""What SkyPilot's API server knows of a run, for launchers on other machines: its record stands in its task."""

from pathlib import Path
from typing import Any

from ftl.backends.kept_record import for_others
from ftl.backends.skypilot_plan import order_in
from ftl.contract import JobHandle

OVER = "over"
"""In the handle of an attempt whose machine SkyPilot had ended before it was found."""


def record_of(run_dir: Path, handle: JobHandle) -> dict[str, Any]:  # Any: JSON of jobs.RunRecord
    """The run's record for the task of that attempt."""
    record = for_others(run_dir, handle)
    _move(record, "")
    return record


def records_in(told: list[dict[str, Any]], runs: Path) -> list[dict[str, Any]]:  # Any: JSON
    """Of each run that the worker tells of the record of its newest attempt; `runs` is where runs are on this
    machine."""
    newest: dict[str, tuple[int, dict[str, Any]]] = {}
    for one in told:
        record = _whole_record(one["script"])
        if record is None:
            continue  # of another version of ftl, or by hand
        attempts = record["attempts"]
        if one["is_over"]:
            attempts[-1]["handle"]["ref"][OVER] = 1
        if newest.get(record["id"], (0, {}))[0] < attempts[-1]["number"]:
            newest[record["id"]] = attempts[-1]["number"], record
    for _, record in newest.values():
        _move(record, str(runs / record["id"]))
    return [record for _, record in newest.values()]


def _move(record: dict[str, Any], run_dir: str) -> None:  # Any: JSON
    """Say where the run's directory on this machine is, in its handles."""
    for attempt in record["attempts"]:
        if attempt.get("handle"):
            attempt["handle"]["ref"]["run_dir"] = run_dir


def _whole_record(script: str) -> dict[str, Any] | None:  # Any: JSON
    """The record in a task, where it has an attempt that can be followed."""
    record: dict[str, Any] = order_in(script).get("record") or {}
    try:
        is_whole = record["id"] and record["attempts"][-1]["number"] and record["attempts"][-1]["handle"]["ref"]
    except (KeyError, IndexError, TypeError):
        return None
    return record if is_whole else None
