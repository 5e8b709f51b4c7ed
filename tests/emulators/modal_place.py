"""The place of one emulated container: its root directory, what is bound into it, and its environment.

It sees the system's programs, the venv that stands in for its image, the files that were mounted and its copies of
volumes. It does not see the checkout, the home or the temporary directory of whoever runs the tests.
"""

import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

SYSTEM = ("bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "sbin", "sys", "usr")
INIT = Path(__file__).with_name("modal_container_init.py")


@dataclass(frozen=True)
class Place:
    directory: Path
    """Of the emulator, outside: holds the root and what describes it."""

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def arguments(self) -> Path:
        return self.root / "modal" / "arguments.pb"


def furnish(place: Place, files: Iterable[tuple[str, Path, int]]) -> None:
    """Make the directories of a fresh container and put the mounted files in."""
    for name in ("root", "tmp", "var/tmp", "run", "modal", "mnt"):
        (place.root / name).mkdir(parents=True)
    (place.root / "tmp").chmod(0o1777)
    for name, content, mode in files:
        top = name.strip("/").partition("/")[0]
        assert top not in (*SYSTEM, "proc"), f"the emulator cannot mount files at {name}: /{top} is the machine's own"
        where = place.root / name.lstrip("/")
        where.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(content, where)
        where.chmod(mode)


def describe(
    place: Place,
    *,
    volumes: Iterable[tuple[Path, str, bool]],
    address: str,
    python_path: Iterable[Path],
    env: Mapping[str, str],
) -> list[str]:
    """Write down how the place is made; the command that makes it and runs the container in it.

    volumes: (directory, where, is read-only). address: what the host name and i6pn.modal.local resolve to.
    """
    for name in SYSTEM:
        if (link := Path("/", name)).is_symlink():
            (place.root / name).symlink_to(link.readlink())
    hosts = place.directory / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n::1 localhost i6pn.modal.local\n{address} {os.uname().nodename}\n")
    system = [
        (f"/{name}", f"/{name}") for name in SYSTEM if Path("/", name).is_dir() and not Path("/", name).is_symlink()
    ]
    pythons = {sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix), *map(str, python_path)}
    stable = [(p, p) for p in sorted(pythons) if not p.startswith("/usr")]
    is_root = os.geteuid() == 0
    binds = [(source, target, is_root and source not in ("/dev", "/sys")) for source, target in (*system, *stable)]
    binds.append((str(hosts), "/etc/hosts", False))
    binds += [(str(directory), where, is_read_only) for directory, where, is_read_only in volumes]
    description = {
        "root": str(place.root),
        "binds": binds,
        "argv": [sys.executable, "-m", "modal._container_entrypoint"],
        "env": dict(env),
        "cwd": "/root",
    }
    file = place.directory / "place.json"
    file.write_text(json.dumps(description))
    return [sys.executable, "-I", "-S", str(INIT), str(file)]


def python_path(extra: Iterable[Path], image_env: Mapping[str, str]) -> str:
    given = image_env.get("PYTHONPATH", "")
    return ":".join(["/root", *map(str, extra), *([given] if given else [])])
