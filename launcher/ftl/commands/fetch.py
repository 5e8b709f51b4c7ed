"""ftl fetch: copies the templates and examples that come with ftl to where the user works."""

import filecmp
import shutil
from pathlib import Path

from ftl.commands import show
from ftl.errors import ConfigError, ExitCode, Problem
from ftl.packaged import packaged

NAMES = ("cloud_templates", "examples", "deepspeed_configs")


def run(name: str, dest: Path | None) -> int:
    """Copy the folder `name` to `dest`. A file there that differs is kept, and named."""
    if name not in NAMES:
        raise ConfigError(Problem("ftl fetch", repr(name), f"must be one of {', '.join(NAMES)}"))
    source, target = packaged(name), dest or Path(name)
    copied, kept = [], []
    for path in _files(source):
        place = target / path.relative_to(source)
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
            copied.append(place)
        elif not filecmp.cmp(path, place, shallow=False):
            kept.append(place)
    show.note(f"{len(copied)} files copied to {target}")
    for place in kept:
        show.note(f"{place} differs from ours and was kept")
    return ExitCode.DONE


def _files(source: Path) -> list[Path]:
    """What ships: every file below, but nothing that a run has made in a checkout and a .gitignore therefore names."""
    made = [g.parent / line.strip("/") for g in source.rglob(".gitignore") for line in g.read_text().splitlines()]
    files = (path for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return sorted(path for path in files if not any(path.is_relative_to(folder) for folder in made))
