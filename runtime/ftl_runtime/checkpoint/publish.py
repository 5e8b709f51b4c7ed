"""The finished model as strangers get it: its files, a card, the record of its making."""

import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from ftl.contract import EVENTS_FILE, MANIFEST_FILE, OUTPUT_DIR, PROVENANCE_FILE, JobSpec
from ftl_runtime.checkpoint import lossplot, manifest
from ftl_runtime.checkpoint.card import card
from ftl_runtime.checkpoint.outbox import OUTBOX_DIR
from ftl_runtime.checkpoint.provenance import provenance, public_name
from ftl_runtime.checkpoint.volume import storage_errors

_ADAPTER_CONFIG = "adapter_config.json"
_PLOT = "loss.png"
_LOCAL_KEYS = ("base_model_name_or_path", "_name_or_path", "name_or_path", "parent_library_path")
"""Keys of configs in which libraries note where something was loaded from."""


def prepare(job: JobSpec, repo: str | None) -> Path:
    """A directory with what is to be delivered, under a manifest of its own; `repo` is the repository it is for.

    The model itself is not copied where the file system has hard links. Raises StorageError.
    """
    assert job.paths is not None
    run_dir = Path(job.paths.run)
    stage = run_dir / OUTBOX_DIR / f"output-{uuid.uuid4().hex[:12]}"
    try:
        with storage_errors(stage.parent):
            _fill(stage, job, run_dir, repo)
    except BaseException:
        clear(stage)
        raise
    return stage


def clear(stage: Path) -> None:
    """Remove what `prepare` made."""
    shutil.rmtree(stage, ignore_errors=True)


def _fill(stage: Path, job: JobSpec, run_dir: Path, repo: str | None) -> None:
    output = run_dir / OUTPUT_DIR
    stage.mkdir(parents=True)
    sealed = manifest.parse((output / MANIFEST_FILE).read_bytes())
    record = provenance(job)
    base = str(record.config["base_model"])
    for name in sealed["files"]:
        target = stage / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".json") and (public := _without_places(output / name, base)) is not None:
            target.write_bytes(public)
        else:
            _link(output / name, target)
    (stage / PROVENANCE_FILE).write_text(record.model_dump_json(indent=1) + "\n")
    has_plot = lossplot.draw(*lossplot.losses_of(run_dir / EVENTS_FILE), stage / _PLOT)
    is_adapter = _ADAPTER_CONFIG in sealed["files"]
    (stage / "README.md").write_text(card(record, repo=repo, is_adapter=is_adapter, plot=_PLOT if has_plot else None))
    manifest.seal(stage, run_id=job.run_id, step=int(sealed["step"]))


def _without_places(path: Path, base: str) -> bytes | None:
    """The JSON file with the places of this machine replaced; None where it names none."""
    try:
        content: Any = json.loads(path.read_bytes())  # Any: JSON
    except ValueError:
        return None
    found = [key for key in _LOCAL_KEYS if isinstance(content, dict) and isinstance(content.get(key), str)]
    if not found:
        return None
    for key in found:
        content[key] = base.removeprefix("./") if key == "base_model_name_or_path" else public_name(content[key])
    return json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
