"""ftl doctor: what this machine can do, one line a finding, and what to do about each that is missing."""

import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from ftl import __version__, backends
from ftl.commands import show
from ftl.contract import JobSpec
from ftl.errors import ExitCode
from ftl.state import cache_dir, state_dir

_STACK = ("torch", "transformers", "peft", "accelerate")
_ADDED = {"bitsandbytes": ("quant", "load_in_4bit"), "deepspeed": ("scale", "deepspeed")}
"""Package -> the extra of ftl that brings it, and a key that needs it."""
_FREE_GIB = 10


@dataclass(frozen=True)
class Finding:
    """One thing looked at: its name, whether it is fine, what was found or what to do."""

    name: str
    ok: bool
    text: str


def run(*, as_json: bool) -> int:
    """Look at everything; 0 when at least one backend can train here, else 3."""
    findings = [*_here(), *_stack()]
    usable = []
    for name in backends.NAMES:
        finding = _backend(name)
        findings.append(finding)
        usable.append(finding.ok)
    show.findings(findings, as_json=as_json)
    return ExitCode.DONE if any(usable) else ExitCode.ENVIRONMENT


def _here() -> Iterator[Finding]:
    yield Finding("ftl", True, f"{__version__} at {Path(backends.__file__).parents[1]}")
    yield Finding("python", sys.version_info >= (3, 11), f"{platform.python_version()} at {sys.executable}")
    for name, path in (("state", state_dir()), ("cache", cache_dir())):
        there = next(place for place in (path, *path.parents) if place.exists())
        free = shutil.disk_usage(there).free / 2**30
        enough = free >= _FREE_GIB
        yield Finding(
            name, enough, f"{path}, {free:.0f} GiB free" + ("" if enough else f"; {_FREE_GIB} GiB are advised")
        )


def _stack() -> Iterator[Finding]:
    for name in (*_STACK, *_ADDED):
        if find_spec(name) is None:
            yield Finding(
                name, False, f"not installed; only needed {_needed_for(name)} on this machine without a container"
            )
            continue
        try:
            yield Finding(name, True, version(name))
        except PackageNotFoundError:
            yield Finding(name, True, "from a source tree")


def _needed_for(name: str) -> str:
    if name not in _ADDED:
        return "to train"
    extra, key = _ADDED[name]
    return f"for `{key}`, from ftl-launcher[{extra}],"


def _backend(name: str) -> Finding:
    kind = backends.load(name)
    backend = kind(kind.Cloud.model_validate({"provider": name}))
    problems = backend.preflight(JobSpec(run_id="doctor", **backend.spec_fields()))
    return Finding(f"backend {name}", not problems, "; ".join(str(p) for p in problems) or "ready")
