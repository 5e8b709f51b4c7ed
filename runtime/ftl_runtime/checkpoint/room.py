"""How much main memory there is for a copy of what a checkpoint holds."""

from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def free_main_memory(proc: Path = Path("/proc"), cgroups: Path = _CGROUPS) -> int | None:
    """Bytes that this process can still get: of the machine, and of each group of processes with a limit that it is in,
    such as its container. What files are cached in counts as free. None where nothing tells, as outside Linux."""
    amounts = [_free_of_machine(proc / "meminfo"), *(_free_of_group(group) for group in _groups(proc, cgroups))]
    return min((amount for amount in amounts if amount is not None), default=None)


def _free_of_machine(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _groups(proc: Path, cgroups: Path) -> list[Path]:
    """The directories of the groups that count our memory, innermost first: of version 2, or of version 1."""
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds in ("", "memory"):
            root = cgroups / kinds
            inner = root / path.lstrip("/")
            found += [inner, *(parent for parent in inner.parents if parent.is_relative_to(root))]
    return found


def _free_of_group(group: Path) -> int | None:
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most, now = (int((group / name).read_text()) for name in (limit, used))  # "max" where there is none
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        return max(most - now + int(stat.get(cached, 0)), 0)
    return None
