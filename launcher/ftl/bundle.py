"""Bundle: the resolved config, the local files it names and our own code, content-addressed.

    STATE/blobs/ab/abcd...           one file a content, shared by all bundles
    STATE/bundles/<sha256>/          config.json, files/, code/, manifest.json (written before the rename)

The same input gives the same id, and nothing is copied again. A model directory too large to copy is mounted
in place instead; its listing is part of the id.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from ftl.atomic import write_atomic
from ftl.bundletar import identity
from ftl.config.data import DATASET_KEYS
from ftl.config.train import TrainConfig
from ftl.contract import (
    BUNDLE_CODE,
    BUNDLE_CONFIG,
    BUNDLE_FILES,
    BUNDLE_SCHEME,
    MANIFEST_FILE,
    MOUNT_SCHEME,
    Bundle,
    Mount,
)
from ftl.errors import ConfigError, Problem, StorageError
from ftl.formats.python import with_strategy_file
from ftl.redact import is_secret_file
from ftl.references import REWARDS, Reference
from ftl.sources.local import LOADERS
from ftl.state import make_private, state_dir

MOUNT_ABOVE_BYTES = 256 * 2**20
"""A directory larger than this is mounted in place rather than copied."""

_LINK_TRIES = 5
_SECTIONS = {
    "base_model": ("model", "base"),
    "base_model_config": ("model", "config_source"),
    "tokenizer_config": ("model", "tokenizer"),
    "lora_model_dir": ("adapter", "initial"),
    "resume_from_checkpoint": ("output", "resume_from_checkpoint"),
}
"""Key of a reference -> where it is in the config; every other is below `data`."""


@dataclass(frozen=True)
class Packed:
    """A bundle as it is or will be on disk, the mounts that go with it, and what was left out of it."""

    bundle: Bundle
    mounts: tuple[Mount, ...]
    config: TrainConfig
    """As the runtime reads it: every local path is `bundle:...` or `mount:...`."""
    files: dict[str, Path]
    """Place in the bundle -> the file that goes there, config.json apart."""
    digests: dict[str, str]
    """Place in the bundle -> sha256."""
    excluded: tuple[str, ...]


@dataclass
class _Parts:
    files: dict[str, Path] = field(default_factory=dict)
    mounts: dict[str, Mount] = field(default_factory=dict)
    excluded: list[str] = field(default_factory=list)


def pack(config: TrainConfig, refs: list[Reference], files: Mapping[str, Path] | None = None) -> Packed:
    """What the bundle holds and its id. Reads every file once; writes nothing.

    `files` are further ones, by their place in the bundle.
    """
    parts = _Parts(files=dict(files or {}))
    placed: dict[str, list[str]] = {}
    for reference in refs:
        placed.setdefault(reference.key, []).append(_place(reference, parts))
    resolved = _resolved(config, placed)
    parts.files.update(_code())
    digests = {name: _digest(path) for name, path in parts.files.items()}
    digests[BUNDLE_CONFIG] = hashlib.sha256(_text(resolved)).hexdigest()
    sha256 = identity(digests, parts.mounts.values())
    size = len(_text(resolved)) + sum(path.stat().st_size for path in parts.files.values())
    bundle = Bundle(sha256=sha256, path=str(state_dir() / "bundles" / sha256), size_bytes=size)
    return Packed(bundle, tuple(parts.mounts.values()), resolved, parts.files, digests, tuple(parts.excluded))


def write(packed: Packed) -> Bundle:
    """Put the bundle on disk unless it is there already.

    It appears whole or not at all. Raises StorageError when there is no room or no access.
    """
    target = Path(packed.bundle.path)
    if not target.exists():
        try:
            _write(target, packed)
        except OSError as error:
            raise StorageError(
                Problem(str(target), error.strerror or str(error), "the bundle could not be written")
            ) from error
    return packed.bundle


def _place(reference: Reference, parts: _Parts) -> str:
    """Put the path into the bundle, or among the mounts; what the resolved config has in its place."""
    path = reference.path
    if reference.key.endswith("chat_template_jinja"):
        return _template(reference)
    if path.is_file():
        name = f"{BUNDLE_FILES}/{_digest(path)[:12]}-{path.name}"
        parts.files[name] = path
        return BUNDLE_SCHEME + name
    listing = [(file.relative_to(path).as_posix(), file) for file in _files_below(path, parts.excluded)]
    stats = {name: file.stat() for name, file in listing}
    if sum(stat.st_size for stat in stats.values()) > MOUNT_ABOVE_BYTES:
        listed = json.dumps([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats.items()]).encode()
        fingerprint = hashlib.sha256(listed).hexdigest()
        name = f"{_slug(path.name)}-{fingerprint[:12]}"
        parts.mounts[name] = Mount(name=name, source=str(path), fingerprint=fingerprint)
        return MOUNT_SCHEME + name
    contents = hashlib.sha256(json.dumps([(name, _digest(file)) for name, file in listing]).encode()).hexdigest()
    prefix = f"{BUNDLE_FILES}/{contents[:12]}-{path.name}"
    parts.files.update({f"{prefix}/{name}": file for name, file in listing})
    return BUNDLE_SCHEME + prefix


def _files_below(root: Path, excluded: list[str]) -> Iterator[Path]:
    """Regular files below a directory, sorted; secrets are left out, links that lead out of it refused."""
    allowed = [root.resolve()]
    if root.parent.name == "snapshots":  # a Hub cache: snapshots/<commit>/file -> ../../blobs/<hash>
        allowed.append((root.parent.parent / "blobs").resolve())
    for directory, names, files in os.walk(root):
        for name in sorted([*names, *files]):
            if is_secret_file(name):
                excluded.append(str(Path(directory) / name))
        names[:] = sorted(n for n in names if not is_secret_file(n) and n != "__pycache__")
        for name in sorted(files):
            path = Path(directory) / name
            if is_secret_file(name):
                continue
            if path.is_symlink() and not any(path.resolve().is_relative_to(base) for base in allowed):
                raise ConfigError(
                    Problem(str(path), f"a link to {path.resolve()}", "links must stay inside the directory")
                )
            if path.is_file():
                yield path


def _code() -> dict[str, Path]:
    """The Python files of our two packages, by their place in the bundle."""
    found: dict[str, Path] = {}
    for package in ("ftl", "ftl_runtime"):
        spec = find_spec(package)
        assert spec is not None and spec.origin is not None, f"{package} is part of this distribution"
        root = Path(spec.origin).parent
        for path in sorted(root.rglob("*.py")):
            if "_data" not in path.parts:
                found[f"{BUNDLE_CODE}/{package}/{path.relative_to(root).as_posix()}"] = path
    return found


def _template(reference: Reference) -> str:
    try:
        return reference.path.read_text("utf-8")
    except (OSError, ValueError) as e:
        given = f"{reference.given}: cannot be read"
        raise ConfigError(Problem(reference.key, given, "must be a template in UTF-8")) from e


def _resolved(config: TrainConfig, placed: dict[str, list[str]]) -> TrainConfig:
    """The config with its local paths replaced by where they are in the job, and templates by their text."""
    nested = config.model_dump(mode="json")
    for key, places in placed.items():
        section, name = _SECTIONS.get(key, ("data", key))
        if key.startswith("lm_eval_tasks."):
            section, name = "harness", key.removeprefix("lm_eval_")
        elif key.startswith(REWARDS):
            section, name = "objective", f"grpo{key.removeprefix('trl')}"
        *way, last = name.split(".")
        holder = nested[section]
        for part in way:
            holder = holder[int(part)] if part.isdigit() else holder[part]
        if section == "harness":
            holder[int(last)] = places[0]
        elif section == "objective":
            holder[int(last)] = with_strategy_file(holder[int(last)], places[0])
        elif last.isdigit():  # an entry of data_files; one with a pattern stands for several files
            holder[int(last)] = places
        else:
            holder[last] = with_strategy_file(holder[last], places[0]) if last == "type" else places[0]
    for dataset in (dataset for key in DATASET_KEYS for dataset in nested["data"][key]):
        entries = [entry if isinstance(entry, list) else [entry] for entry in dataset["data_files"]]
        if entries != [[given] for given in dataset["data_files"]]:
            dataset["data_files"] = [place for entry in entries for place in entry]
            dataset["path"] = dataset["path"] if dataset["path"] in LOADERS else None
    return TrainConfig.model_validate(nested)


def _text(resolved: TrainConfig) -> bytes:
    return json.dumps(resolved.model_dump(mode="json"), indent=1, sort_keys=True).encode()


def _write(target: Path, packed: Packed) -> None:
    stage = target.with_name(f".{target.name[:12]}-{uuid.uuid4().hex}")
    try:
        make_private(stage)
        (stage / BUNDLE_CONFIG).write_bytes(_text(packed.config))
        for name, source in packed.files.items():
            place = stage / name
            place.parent.mkdir(parents=True, exist_ok=True)
            _link(source, packed.digests[name], place)
        write_atomic(stage / MANIFEST_FILE, json.dumps({"version": 1, "files": packed.digests}, indent=1).encode())
        stage.rename(target)
    except OSError:
        shutil.rmtree(stage, ignore_errors=True)
        if not target.exists():  # otherwise another launcher was faster, and its bundle is the same
            raise


def _link(source: Path, digest: str, place: Path) -> None:
    """Put the file there, without a copy where its content is known."""
    for _ in range(_LINK_TRIES):
        with suppress(FileNotFoundError):  # another shell has just tidied up, and no bundle held it yet
            os.link(_blob(source, digest), place)
            return
    os.link(_blob(source, digest), place)


def _blob(source: Path, digest: str) -> Path:
    """A private copy of the file, kept under its content hash. The user's own file may change tomorrow.

    One that is there is never replaced: a link to a file that is being replaced fails.
    """
    blob = state_dir() / "blobs" / digest[:2] / digest
    if not blob.exists():
        make_private(blob.parent)
        stage = blob.with_name(f".{digest[:12]}-{uuid.uuid4().hex}")
        try:
            shutil.copyfile(source, stage)
            if hashlib.file_digest(stage.open("rb"), "sha256").hexdigest() != digest:
                raise ConfigError(Problem(str(source), "changed while it was read", None, "run the command again"))
            stage.chmod(0o400)
            with suppress(FileExistsError):  # another launcher was faster
                os.link(stage, blob)
        finally:
            stage.unlink(missing_ok=True)
    return blob


_digests: dict[tuple[str, int, int, int], str] = {}


def _digest(path: Path) -> str:
    """sha256 of a file, read once a process for the same inode, size and modification time."""
    stat = path.stat()
    key = (str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)
    if key not in _digests:
        with path.open("rb") as file:
            _digests[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _digests[key]


def _slug(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name.lower()).strip("-")[:30] or "dir"
