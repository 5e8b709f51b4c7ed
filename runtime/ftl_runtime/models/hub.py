"""The files of a base model on this machine: those of a directory, or of a Hub repository at one commit."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Literal

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.tqdm import disable_progress_bars

from ftl.config.model import ModelSection
from ftl.errors import ConfigError, StorageError
from ftl.sources.hubrepo import Repo, ask_hub, check_access, is_repo_id, resolve_commit
from ftl.sources.retry import UnreachableError
from ftl_runtime import ranks
from ftl_runtime.context import Context
from ftl_runtime.models.code import check_own, check_pinned

_KEYS: dict[str, tuple[str, str]] = {
    "base": ("base_model", "model_revision"),
    "tokenizer": ("tokenizer_config", "tokenizer_config"),
    "config_source": ("base_model_config", "base_model_config"),
}
"""Field of ModelSection -> the key of the config that names it, and the key of its revision."""
_SMALL = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
_CODE = ("*.py",)
_WEIGHTS = ("*.safetensors",)
_TOLD_EVERY_S = 2.0
_GIB = 2**30
Wanted = Literal["all", "tokenizer"]


def on_this_machine(model: ModelSection, ctx: Context, *, wanted: Wanted) -> tuple[ModelSection, str | None]:
    """The section with every place a directory here, and the commit of the base where that is a Hub repository.

    Downloads what is wanted and not here yet: the first rank does, the others wait. Code comes of the base alone, whose
    commit the config gives, and only where it is trusted. Raises ConfigError for a repository
    that is not there or may not be read, UnreachableError without an answer, StorageError without room.
    """
    places: dict[str, str] = {}
    commit: str | None = None
    with ranks.main_first(ctx.device):
        for field, (key, revision_key) in _KEYS.items():
            given: str | None = getattr(model, field)
            if given is None:
                continue
            local = ctx.resolve_model(given)
            if Path(local).exists() or not is_repo_id(local):
                places[field] = local
                continue
            revision = model.revision if field == "base" else None
            repo = Repo(given, revision, "model", key, revision_key)
            has_code = field == "base" and model.trust_remote_code
            if has_code:
                check_pinned(repo)
            has_weights = field == "base" and wanted == "all" and not model.reinit_weights
            directory = _fetch(repo, model, ctx, has_weights=has_weights, has_code=has_code)
            places[field] = str(directory)
            commit = directory.name if field == "base" else commit
    for place in places.values() if model.trust_remote_code else ():
        check_own(Path(place))
    return model.model_copy(update={**places, "revision": None}), commit


def _fetch(repo: Repo, model: ModelSection, ctx: Context, *, has_weights: bool, has_code: bool) -> Path:
    """The directory of the repository's files at one commit; its name is the commit."""
    disable_progress_bars()
    try:
        check_access(repo)
        commit = resolve_commit(repo)
        files = ask_hub(repo, lambda: _root_files(repo.id, commit))
    except UnreachableError:
        return _kept(repo)
    names = _selected([file.path for file in files], model, has_weights=has_weights, has_code=has_code)
    if has_weights and not any(name.endswith(".safetensors") for name in names):
        _refuse_without_weights(repo, [file.path for file in files])
    size = sum(file.size for file in files if file.path in names)
    with _told(repo, size, ctx):
        try:
            return Path(ask_hub(repo, lambda: snapshot_download(repo.id, revision=commit, allow_patterns=names)))
        except OSError as error:
            raise StorageError(f"{repo.id}: cannot be stored: {error.strerror or error}") from error


def _root_files(id: str, commit: str) -> list[RepoFile]:
    """Those below its directories are copies in other formats."""
    return [item for item in HfApi().list_repo_tree(id, revision=commit) if isinstance(item, RepoFile)]


def _kept(repo: Repo) -> Path:
    """What an earlier run has stored of it. Raises UnreachableError, which names the reason, where that is nothing."""
    directory = _cache_of(repo) / "snapshots" / resolve_commit(repo)
    if directory.is_dir():
        return directory
    raise UnreachableError(f"{repo.key}: {repo.id}: the Hub does not answer, and it is not on this machine")


def _cache_of(repo: Repo) -> Path:
    return Path(constants.HF_HUB_CACHE) / f"models--{repo.id.replace('/', '--')}"


def _selected(names: Sequence[str], model: ModelSection, *, has_weights: bool, has_code: bool) -> list[str]:
    """The files that a training reads. Weights under two names, as Mistral's are, are read under transformers' own."""
    patterns = (*_SMALL, *(_CODE if has_code else ()))
    found = [name for name in names if _matches(name, patterns)]
    if has_weights:
        weights = [name for name in names if _matches(name, _WEIGHTS)]
        found += [name for name in weights if name.startswith("model")] or weights
    return [name for name in found if not _matches(name, model.ignore_patterns)]


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _refuse_without_weights(repo: Repo, names: Sequence[str]) -> None:
    if any(_matches(name, _WEIGHTS) for name in names):
        raise ConfigError(f"base_model_ignore_patterns: leaves out every *.safetensors of {repo.id}")
    pickle = next((name for name in names if _matches(name, ("*.bin", "*.pt", "*.pth"))), None)
    if pickle is not None:
        raise ConfigError(
            f"base_model: {repo.id} has only {pickle}, a pickle, which can run any code when it is read; "
            "take a base that has safetensors, or a revision where the Hub has converted it (refs/pr/N)"
        )
    raise ConfigError(
        f"base_model: {repo.id} has no *.safetensors weights; to start from random weights set reinit_weights: true"
    )


@contextmanager
def _told(repo: Repo, size_bytes: int, ctx: Context) -> Iterator[None]:
    """Tell how much of the repository has come while the block runs. Raises StorageError where it cannot fit."""
    cache = Path(constants.HF_HUB_CACHE)
    blobs = _cache_of(repo) / "blobs"
    before, began = _size_below(blobs), monotonic()
    existing = next(parent for parent in (cache, *cache.parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if size_bytes - before > free:
        raise StorageError(
            f"{cache}: {free / _GIB:.1f} GiB free, and {repo.id} takes {size_bytes / _GIB:.1f} GiB; free some space, "
            "or put the cache elsewhere with HF_HOME"
        )

    def tell(num_bytes: int) -> None:
        speed = max(0, num_bytes - before) / max(monotonic() - began, 1e-9)
        known = {"label": repo.id, "bytes": num_bytes, "total_bytes": size_bytes, "bytes_per_s": speed}
        ctx.emit("phase", {"name": "model", **known, "share": min(1.0, num_bytes / max(1, size_bytes))})

    done = Event()

    def watch() -> None:
        while not done.wait(_TOLD_EVERY_S):
            tell(_size_below(blobs))

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    tell(size_bytes)


def _size_below(directory: Path) -> int:
    sizes = []
    for path in directory.glob("*"):
        try:
            sizes.append(path.stat().st_size)
        except OSError:  # renamed while we look: it was finished
            continue
    return sum(sizes)
