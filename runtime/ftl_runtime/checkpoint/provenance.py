"""What a finished run was made from: ftl-run.json."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ftl import __version__
from ftl.config.train import TrainConfig
from ftl.config.written import flat
from ftl.contract import (
    BUNDLE_CONFIG,
    BUNDLE_FILES,
    BUNDLE_SCHEME,
    EVENTS_FILE,
    MANIFEST_FILE,
    MOUNT_SCHEME,
    RESULT_FILE,
    JobSpec,
    Provenance,
    RunResult,
)
from ftl.redact import redacted
from ftl_runtime.checkpoint import manifest

_HASHED = re.compile(r"(?:bundle:)?files/[0-9a-f]{12}-(.+)")
_MOUNTED = re.compile(r"mount:(.+)-[0-9a-f]{12}((?:/.*)?)")
_PRIVATE = ("output_dir",)
"""Keys that say where something was on the launching machine."""


def provenance(job: JobSpec) -> Provenance:
    """The record of a run that has its result."""
    assert job.paths is not None
    run_dir, bundle = Path(job.paths.run), Path(job.paths.bundle)
    cfg = TrainConfig.read_json((bundle / BUNDLE_CONFIG).read_bytes())
    result = RunResult.read_json((run_dir / RESULT_FILE).read_bytes())
    used = tuple(use.model_copy(update={"label": redacted(public_name(use.label))}) for use in result.datasets)
    hours = sum(last - first for first, last in _attempts(run_dir)) / 3600
    gpus = result.ranks if job.resources.gpus else 0
    return Provenance(
        run_id=job.run_id,
        ftl=__version__,
        finished_at=time.time(),
        config={key: _public(value) for key, value in flat(cfg).items() if key not in _PRIVATE},
        inputs=_inputs(bundle),
        bundle=manifest.digest(bundle / MANIFEST_FILE)[1] if (bundle / MANIFEST_FILE).is_file() else None,
        cloud={key: _public(value) for key, value in job.cloud.items()},
        image=job.image,
        gpu_hours=hours * gpus if gpus else None,
        hours=hours,
        result=result.model_copy(update={"datasets": used}),
    )


def public_name(given: str) -> str:
    """What a path or reference of a job is called where strangers read it: without its directories."""
    if match := _HASHED.fullmatch(given):
        return f"./{match[1]}"
    if match := _MOUNTED.fullmatch(given):
        return f"./{match[1]}{match[2]}"
    if given.startswith(("/", "~", BUNDLE_SCHEME, MOUNT_SCHEME)):
        name = Path(given).name
        match = re.fullmatch(r"[0-9a-f]{12}-(.+)", name)
        return f"./{match[1] if match else name}"
    return given


def _public(value: Any) -> Any:  # Any: JSON
    if isinstance(value, str):
        return redacted(public_name(value))
    if isinstance(value, list):
        return [_public(item) for item in value]
    if isinstance(value, dict):
        return {key: _public(item) for key, item in value.items()}
    return value


def _inputs(bundle: Path) -> dict[str, str]:
    """The user's own files in the bundle, by the names that the public config has for them."""
    try:
        files = json.loads((bundle / MANIFEST_FILE).read_bytes())["files"]
    except (OSError, ValueError, KeyError):
        return {}
    return {
        public_name(name).removeprefix("./"): sha256
        for name, sha256 in files.items()
        if name.startswith(f"{BUNDLE_FILES}/")
    }


def _attempts(run_dir: Path) -> Iterator[tuple[float, float]]:
    """When the first and the last event of each attempt was."""
    spans: dict[int, tuple[float, float]] = {}
    for line in (run_dir / EVENTS_FILE).read_text(errors="replace").splitlines():
        try:
            event = json.loads(line)
            number, at = int(event["attempt"]), float(event["t"])
        except (ValueError, KeyError, TypeError):
            continue  # a line torn by a kill
        first = spans.get(number, (at, at))[0]
        spans[number] = first, at
    yield from spans.values()
