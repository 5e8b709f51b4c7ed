"""Every image is reproducible: bases by digest, packages by hash, one place for each version."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "images"
DOCKERFILE = (IMAGES / "Dockerfile").read_text()
LOCKS = sorted(IMAGES.glob("requirements-*.txt"))
PINNED = re.compile(r"[^\s@]+:[^\s@]+@sha256:[0-9a-f]{64}")


def blocks(lock: Path) -> dict[str, list[str]]:
    """The requirement lines of a lock -> the hashes that follow each."""
    found: dict[str, list[str]] = {}
    for line in lock.read_text().splitlines():
        if re.match(r"[a-z0-9]", line):
            found[line.rstrip(" \\")] = []
        elif line.startswith("    --hash="):
            found[list(found)[-1]].append(line.strip().rstrip(" \\"))
    return found


def test_every_base_is_pinned_by_digest() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", DOCKERFILE, re.MULTILINE))
    defaults = dict(re.findall(r"^ARG (\w+)=(.+)$", DOCKERFILE, re.MULTILINE))
    froms = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert froms
    for source in froms:
        source = re.sub(r"\$\{(\w+)\}", lambda name: defaults[name[1]], source)
        assert source in stages or PINNED.fullmatch(source), source


def test_every_base_in_the_lock_file_is_pinned_by_digest() -> None:
    entries = tomllib.loads((IMAGES / "images.lock.toml").read_text())["images"]
    assert {"cuda", "cpu"} <= set(entries)
    for entry in entries.values():
        assert PINNED.fullmatch(entry["base"])
        assert "published" not in entry or PINNED.fullmatch(entry["published"])
        assert (IMAGES / entry["lock"]).exists()


def test_cuda_base_is_the_same_in_both_places() -> None:
    entries = tomllib.loads((IMAGES / "images.lock.toml").read_text())["images"]
    assert f"ARG BASE_IMAGE={entries['cuda']['base']}\n" in DOCKERFILE


def test_no_frontend_is_fetched_before_a_build() -> None:
    assert not re.search(r"^#\s*syntax\s*=", DOCKERFILE, re.MULTILINE | re.IGNORECASE)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_every_requirement_is_exact_and_hashed(lock: Path) -> None:
    found = blocks(lock)
    assert len(found) > 30
    for line, hashes in found.items():
        [pin] = Requirement(line).specifier
        assert pin.operator == "==", line
        assert hashes, line
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", one) for one in hashes), line


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_lock_names_no_index(lock: Path) -> None:
    assert not re.search(r"://|--(extra-)?index|--find-links", lock.read_text())


def test_cpu_lock_has_nothing_of_cuda() -> None:
    names = {Requirement(line).name for line in blocks(IMAGES / "requirements-cpu.txt")}
    assert not {name for name in names if name.startswith(("nvidia", "triton", "cuda"))}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_lock_satisfies_the_declared_ranges(lock: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    declared = [Requirement(one) for one in (*extras["runtime"], *extras["data"], *project["dependencies"])]
    declared = [one for one in declared if one.name not in (project["name"], "typer", "rich")]  # a job has no terminal
    locked = [Requirement(line) for line in blocks(lock)]
    for wanted in declared:
        pins = [next(iter(one.specifier)).version for one in locked if one.name.lower() == wanted.name.lower()]
        assert pins, f"{wanted.name} is not locked"
        assert all(wanted.specifier.contains(pin) for pin in pins), f"{wanted} but the lock says {pins}"


def test_both_locks_agree_on_the_stack() -> None:
    cpu, cuda = (
        {Requirement(line).name: next(iter(Requirement(line).specifier)).version.split("+")[0] for line in blocks(lock)}
        for lock in (IMAGES / "requirements-cpu.txt", IMAGES / "requirements-cu130.txt")
    )
    for name in ("torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers"):
        assert cpu[name] == cuda[name]
