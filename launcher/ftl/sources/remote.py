"""Files behind an address, s3: gs: hf: or https:, fetched to this machine once for each content."""

import errno
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from ftl.config.address import is_whole_address
from ftl.errors import ConfigError, FtlError, Problem, StorageError
from ftl.sources.hubrepo import client_function
from ftl.sources.package import missing_package
from ftl.sources.retry import PassingError, UnreachableError, causes, with_retries

_PACKAGES = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "hf": "huggingface_hub",
    "https": "aiohttp",
    "http": "aiohttp",
}
"""Scheme of an address -> the package that reads it."""
_VALIDATORS = ("ETag", "etag", "blob_id", "generation", "md5Hash", "Content-MD5", "Last-Modified", "LastModified")
_CLIENTS = ("aiohttp", "botocore", "aiobotocore", "gcsfs", "google", "httpx2")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_STAGE = ".fetch-"
_OLD_S = 24 * 3600.0
_Files = dict[str, dict[str, Any]]  # Any: what a file system says of a file: path -> facts


def shown_address(address: str) -> str:
    """The address without what may be secret: user, password, query."""
    if not is_whole_address(address):
        return address.partition("?")[0].rpartition("@")[2]
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def fetch(address: str, download_dir: Path, key: str) -> Path:
    """The file, or the directory of files, at an address, on this machine.

    It is fetched only when its etag, generation or time is not that of an earlier fetch. Raises ConfigError where
    there is nothing or no access, and UnreachableError where the other side does not answer. Problems name `key`.
    """
    shown = shown_address(address)
    _check_whole(address, Problem(key, shown))
    try:
        return with_retries(lambda: _fetch(address, download_dir, Problem(key, shown)))
    except PassingError as e:
        raise UnreachableError(Problem(key, f"{shown}: {e}", None, "try again later")) from e


def look_up(address: str, key: str) -> int | None:
    """The bytes of the file, or of all files, at an address; None where the other side does not tell.

    Asks once, without a second try. Raises as `fetch`.
    """
    shown = shown_address(address)
    problem = Problem(key, shown)
    _check_whole(address, problem)
    try:
        with in_words(problem):
            _, root, files = _listing(address)
            _places(root, files, problem)
    except PassingError as e:
        raise UnreachableError(Problem(key, f"{shown}: {e}", None, "try again later")) from e
    sizes = [facts.get("size") for facts in files.values()]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def file_system(scheme: str, **options: Any) -> Any:  # Any: fsspec ships no types
    """The file system of a scheme, which remembers nothing of others of its kind."""
    import fsspec

    return fsspec.filesystem(scheme, skip_instance_cache=True, **options)


def _check_whole(address: str, problem: Problem) -> None:
    """Raises ConfigError for an address without a host or bucket: file systems list all they know for it, or fail."""
    if not is_whole_address(address):
        allowed = "must name a host or a bucket, as https://host/rows.jsonl or s3://bucket/rows.jsonl"
        raise ConfigError(Problem(problem.where, problem.given, allowed))


def _fetch(address: str, download_dir: Path, problem: Problem) -> Path:
    with in_words(problem):
        system, root, files = _listing(address)
        places = _places(root, files, problem)
        version = _version(shown_address(address), files)
        top = next(iter(places.values())).parts[0]
        if version and (download_dir / version).is_dir():
            return download_dir / version / top
        download_dir.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=_STAGE, dir=download_dir))
        _collect(download_dir)
        try:
            for path, place in places.items():
                _get(system, path, stage / place, files[path].get("size"))
            target = download_dir / (version or _content(stage))
            _publish(stage, target)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    return target / top


def _listing(address: str) -> tuple[Any, str, _Files]:  # Any: fsspec ships no types
    """The file system, the path in it, and the files there."""
    import fsspec

    system, path = fsspec.url_to_fs(address, skip_instance_cache=True)
    facts = system.info(path)
    if facts["type"] != "directory":
        return system, path, {path: facts}
    return system, path, system.find(path, detail=True)


def _places(root: str, files: _Files, problem: Problem) -> dict[str, PurePosixPath]:
    """Where each file goes: NAME, or NAME/its place in the directory."""
    name = PurePosixPath(unquote(urlsplit(root).path)).name or "data"
    below = {path: PurePosixPath(path).relative_to(root) for path in files if path != root and not path.endswith("/")}
    if any(".." in place.parts for place in below.values()):
        raise ConfigError(Problem(problem.where, problem.given, "holds a file whose name has .. in it"))
    if not below and root not in files:
        raise ConfigError(Problem(problem.where, problem.given, "holds no files"))
    return {path: PurePosixPath(name, place) for path, place in below.items()} or {root: PurePosixPath(name)}


def _version(shown: str, files: _Files) -> str | None:
    """A name for the content, as far as the other side tells; None where it does not."""
    told = {path: next((str(facts[v]) for v in _VALIDATORS if facts.get(v)), None) for path, facts in files.items()}
    if None in told.values():
        return None
    return hashlib.sha256(json.dumps([shown, sorted(told.items())]).encode()).hexdigest()[:32]


def _content(stage: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(stage.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest.update(path.relative_to(stage).as_posix().encode())
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def _get(system: Any, path: str, place: Path, size: int | None) -> None:  # Any: fsspec ships no types
    place.parent.mkdir(parents=True, exist_ok=True)
    system.get_file(path, str(place))
    if size is not None and place.stat().st_size != size:
        raise PassingError(f"{place.stat().st_size} of {size} bytes of {place.name} came")


def _collect(download_dir: Path) -> None:
    """Remove what fetches left that were killed more than a day ago."""
    for leftover in download_dir.glob(f"{_STAGE}*"):
        with suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _OLD_S:
                shutil.rmtree(leftover, ignore_errors=True)


def _publish(stage: Path, target: Path) -> None:
    try:
        stage.rename(target)
    except OSError:
        if not target.is_dir():  # otherwise another process was first, and has the same
            raise


@contextmanager
def in_words(problem: Problem) -> Iterator[None]:
    """Failures as ConfigError, or as PassingError. No message of theirs is shown: it may hold the whole address."""
    try:
        yield
    except (FtlError, PassingError):
        raise
    except ImportError as e:
        package = _PACKAGES[str(problem.given).partition(":")[0]]
        raise missing_package(problem.where, f"{problem.given}: needs '{package}'") from e
    except Exception as e:
        verdict = _verdict(problem, e)
        if verdict is e:
            raise
        raise verdict from e


def _verdict(problem: Problem, error: Exception) -> Exception:
    status = next((found for cause in causes(error) if (found := status_of(cause))), None)
    kinds = {kind.__name__ for cause in causes(error) for kind in type(cause).__mro__}
    if any(isinstance(cause, OSError) and cause.errno in _DISK_FULL for cause in causes(error)):
        return StorageError(Problem(problem.where, problem.given, "cannot be stored here: no space, or no access"))
    if status == 429 or (status or 0) >= 500:
        return PassingError(f"answered {status}")
    if "RepositoryNotFoundError" in kinds:
        allowed = "no such repository, or no access to it"
        return ConfigError(
            Problem(problem.where, problem.given, allowed, "log in with `hf auth login` or set HF_TOKEN")
        )
    if "BucketNotFoundError" in kinds:
        allowed = "no such bucket, or no access to it"
        return ConfigError(
            Problem(problem.where, problem.given, allowed, "make it with `hf buckets create`, or set HF_TOKEN")
        )
    is_forbidden = any(str(cause).startswith("Forbidden") for cause in causes(error))  # gcsfs: an OSError without more
    if status in (401, 403) or "PermissionError" in kinds or is_forbidden:
        return ConfigError(Problem(problem.where, problem.given, "access is refused", "check the credentials"))
    if "NoCredentialsError" in kinds or "DefaultCredentialsError" in kinds:
        return ConfigError(Problem(problem.where, problem.given, "no credentials are set for it"))
    if status == 404 or (status is None and type(error) is FileNotFoundError and error.__cause__ is None):
        return ConfigError(Problem(problem.where, problem.given, "no such file or directory"))
    if status is not None:
        return ConfigError(Problem(problem.where, problem.given, f"the server answered {status}"))
    if any(isinstance(cause, OSError) or type(cause).__module__.split(".")[0] in _CLIENTS for cause in causes(error)):
        return PassingError(f"does not answer ({type(list(causes(error))[-1]).__name__})")
    if client_function(error, (*_CLIENTS, "huggingface_hub", "s3fs", "fsspec")):
        return PassingError(f"its client failed ({type(error).__name__})")
    return error


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an exception of aiohttp, httpx2, botocore or gcsfs tells of."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        response = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    found = [
        response,
        getattr(error, "status", None),
        getattr(error, "code", None),
        getattr(response, "status_code", None),
    ]
    return next((status for status in found if isinstance(status, int)), None)
