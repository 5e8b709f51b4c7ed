"""ftl fetch: copies the templates and examples that come with ftl to where the user works."""

import filecmp
import shutil
from pathlib import Path

from ftl.commands import show
from ftl.errors import ConfigError, ExitCode, Problem
from ftl.packaged import packaged

NAMES = ("cloud_templates", "examples")


def run(name: str, dest: Path | None) -> int:
    """Copy the folder `name` to `dest`. A file there that differs is kept, and named."""
    if name not in NAMES:
        raise ConfigError(Problem("ftl fetch", repr(name), f"must be one of {', '.join(NAMES)}"))
    source, target = packaged(name), dest or Path(name)
    copied, kept = [], []
    for path in sorted(p for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
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
