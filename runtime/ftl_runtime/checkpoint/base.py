"""Which base a checkpoint was trained on: noted in the checkpoint, and compared before anybody goes on from it.

An adapter on another base than its own trains without an error, to nothing of use.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ftl.config.model import ModelSection
from ftl.errors import ConfigError
from ftl.sources.hubrepo import is_commit
from ftl_runtime.checkpoint.store import Checkpoint

BASE_FILE = "base.json"
_BLOCK = 1 << 16
_NUM_BLOCKS = 8
"""So many blocks of each file are read: a base of 140 GB is told apart from another in a second."""


@dataclass(frozen=True)
class Base:
    """What tells one base from another. No names of places: checkpoints go to stores that others read."""

    weights: str
    """sha256 over names, sizes and parts of the files with weights; of config.json where there are none."""
    repo: str | None = None
    commit: str | None = None
    """Of a repository of the Hub."""

    @classmethod
    def of(cls, directory: Path, *, repo: str | None, commit: str | None) -> "Base":
        """That of the base in `directory`, which is `repo` at `commit` if it came from the Hub."""
        return cls(_fingerprint(directory), repo if commit else None, commit)

    def write(self, directory: Path) -> None:
        """Note it in the directory of a checkpoint."""
        (directory / BASE_FILE).write_text(json.dumps(asdict(self)))


def noted(checkpoint: Path) -> Base | None:
    """What the checkpoint says of its base; None where it says nothing."""
    try:
        record = json.loads((checkpoint / BASE_FILE).read_bytes())
        return Base(str(record["weights"]), record["repo"], record["commit"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def at_commit_of(model: ModelSection, resume: Checkpoint | None) -> ModelSection:
    """The section with the base at the commit that the checkpoint was trained on, where the config leaves it open."""
    known = noted(resume.path) if resume else None
    if known is None or known.commit is None or known.repo != model.base or is_commit(model.revision):
        return model
    return model.model_copy(update={"revision": known.commit})


def check_same(base: Base, resume: Checkpoint | None) -> None:
    """Raises ConfigError where the checkpoint was trained on another base."""
    known = noted(resume.path) if resume else None
    if resume is None or known is None or known.weights == base.weights:
        return
    was = f", {known.repo} at commit {known.commit}" if known.commit else ""
    remedy = f"write `model_revision: {known.commit}`" if known.repo == base.repo and known.commit else "name that one"
    raise ConfigError(
        f"base_model: {resume.path.name} was trained on another base{was}; {remedy}, or start a run of its own without "
        "this checkpoint"
    )


def _fingerprint(directory: Path) -> str:
    weights = sorted(directory.glob("*.safetensors"))
    found = hashlib.sha256()
    for path in weights or directory.glob("config.json"):
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            found.update(json.dumps([path.name, size]).encode())
            for number in range(_NUM_BLOCKS):
                file.seek(number * max(0, size - _BLOCK) // (_NUM_BLOCKS - 1))
                found.update(file.read(_BLOCK))
    return found.hexdigest()
