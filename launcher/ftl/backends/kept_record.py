"""A run's record as a provider keeps it for launchers on other machines: without the paths of this one."""

import json
from pathlib import Path
from typing import Any

from ftl.contract import JobHandle

RECORD_FILE = "record.json"
_PRIVATE = ("config_path", "output_dir", "base_model")
"""Paths of a record that mean something on the machine that launched it alone; their last part is kept."""

_UNTOLD = {"handle": None, "cloud": None}


def for_others(run_dir: Path, handle: JobHandle | None) -> dict[str, Any]:  # Any: JSON of jobs.RunRecord
    """What `run_dir` has of the run, with the handle of the attempt that is being submitted where it has one."""
    record: dict[str, Any] = json.loads((run_dir / RECORD_FILE).read_bytes())
    for key in _PRIVATE:
        if isinstance(record.get(key), str) and record[key].startswith("/"):
            record[key] = Path(record[key]).name
    record["spec"]["mounts"] = [{**mount, "source": ""} for mount in record["spec"]["mounts"]]
    record["bundle"]["path"] = ""
    record["attempts"] = [one if _is_own(one, record) else {**one, **_UNTOLD} for one in record["attempts"]]
    if handle is not None:
        kept = [one for one in record["attempts"] if one["number"] != handle.attempt]
        own = next((one for one in record["attempts"] if one["number"] == handle.attempt), {"submitted_at": 0.0})
        record["attempts"] = [*kept, {**own, "number": handle.attempt, "handle": handle.model_dump()}]
    return record


def _is_own(attempt: dict[str, Any], record: dict[str, Any]) -> bool:  # Any: JSON
    """Whether this provider was given it: what others say of theirs names places of the launching machine."""
    accepted = attempt.get("handle") or {}
    return (attempt.get("provider") or accepted.get("provider")) in (None, record["provider"])
