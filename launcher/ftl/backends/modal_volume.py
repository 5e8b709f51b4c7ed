"""A run on Modal's volume as a launcher sees it: what lies there, piece by piece, and what is put there."""

import io
import json
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftl import bundletar
from ftl.contract import MANIFEST_FILE
from ftl.errors import BackendError, FtlError, Problem
from ftl.redact import is_secret_file

if TYPE_CHECKING:
    from modal import Volume

NO_SDK = Problem("provider 'modal' needs the 'modal' package", "pip install 'ftl-launcher[modal]'")
SEGMENT_BYTES = 256 * 1024  # as in ftl_runtime.modal_entry
_SEGMENTS_DIR = ".segments"
_GROWING = ("events.jsonl", "log.txt")
_DOWNLOADS = 4


@contextmanager
def modal_errors() -> Iterator[None]:
    """Whatever Modal's client raises leaves as a BackendError of one sentence."""
    if find_spec("modal") is None:
        raise BackendError(NO_SDK)
    import modal.exception
    from grpclib.exceptions import GRPCError, StreamTerminatedError

    try:
        yield
    except FtlError:
        raise
    except modal.exception.AuthError as error:
        raise BackendError(no_access(_sentence(error))) from error
    except (modal.exception.Error, GRPCError, StreamTerminatedError, OSError) as error:
        raise BackendError(Problem("Modal", _sentence(error) or type(error).__name__)) from error


def no_access(reason: str) -> Problem:
    return Problem(
        "Modal", reason, None, "`modal token new`, or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET in this shell"
    )


def _sentence(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def state_volume(name: str, environment: str | None) -> "Volume":
    """A volume of ftl's own by name, looked up once a process."""
    return _volume(name, environment, os.environ.get("MODAL_SERVER_URL"))


@lru_cache(maxsize=16)
def _volume(name: str, environment: str | None, server: str | None) -> "Volume":
    import modal

    return modal.Volume.from_name(name, environment_name=environment)


def sizes(volume: "Volume", directory: str) -> dict[str, int]:
    """Name -> size of what lies directly in a directory; empty where it is not there. One request."""
    import modal

    try:
        entries = volume.listdir(directory)
    except (modal.exception.NotFoundError, FileNotFoundError):
        return {}
    return {entry.path.rpartition("/")[2]: entry.size for entry in entries}


def content(volume: "Volume", path: str) -> bytes:
    """The whole file; empty where it is not there."""
    import modal

    try:
        return b"".join(volume.read_file(path))
    except (modal.exception.NotFoundError, FileNotFoundError):
        return b""


def record(volume: "Volume", path: str) -> dict[str, Any]:  # Any: JSON
    """The JSON object in a file; empty where there is none."""
    try:
        found = json.loads(content(volume, path) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def content_from(volume: "Volume", directory: str, name: str, offset: int) -> bytes:
    """What a file of a run directory holds from `offset` on.

    One request while nothing has come; of a growing file only the pieces from there on are fetched.
    """
    folder, _, last = f"{directory}/{name}".rpartition("/")
    size = sizes(volume, folder).get(last, 0)
    if size <= offset:
        return b""
    if name not in _GROWING:
        return content(volume, f"{directory}/{name}")[offset:]
    first, final = offset // SEGMENT_BYTES, (size - 1) // SEGMENT_BYTES
    pieces = [content(volume, f"{directory}/{_SEGMENTS_DIR}/{name}/{n:06d}") for n in range(first, final + 1)]
    whole = [piece for n, piece in enumerate(pieces) if n == len(pieces) - 1 or len(piece) == SEGMENT_BYTES]
    if len(whole) < len(pieces):  # pieces of two commits: the next look sees one
        return b""
    return b"".join(whole)[offset - first * SEGMENT_BYTES :]


def fetch(volume: "Volume", path: str, dest: Path) -> bool:
    """Copy a file or a directory here, each file compared with the size that the volume tells; False where it is not
    there."""
    import modal
    from modal.types import FileEntryType

    try:
        entries = list(volume.iterdir(path, recursive=True))
    except (modal.exception.NotFoundError, FileNotFoundError):
        return False
    files = [entry for entry in entries if entry.type == FileEntryType.FILE]
    targets = {}
    for entry in files:
        below = entry.path.strip("/").removeprefix(path.strip("/")).strip("/")
        target = dest / below if below else dest
        if not target.resolve().is_relative_to(dest.resolve()):
            raise BackendError(Problem(entry.path, "is no path below the run"))
        targets[entry.path] = (target, entry.size)
    with ThreadPoolExecutor(_DOWNLOADS) as pool:
        for done in [pool.submit(_download, volume, name, *where) for name, where in targets.items()]:
            done.result()
    return bool(files)


def _download(volume: "Volume", path: str, target: Path, size: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    with part.open("wb") as file:
        for chunk in volume.read_file(path):
            file.write(chunk)
    if part.stat().st_size != size:
        raise BackendError(Problem(path, f"{part.stat().st_size} of {size} bytes came", None, "try again"))
    part.replace(target)


def put_json(volume: "Volume", files: dict[str, dict[str, Any]]) -> None:  # Any: JSON
    """Put JSON objects on the volume by their paths, in one go."""
    with volume.batch_upload(force=True) as batch:
        for path, value in files.items():
            batch.put_file(io.BytesIO(json.dumps(value, indent=1).encode()), f"/{path}")


def put_bundle(volume: "Volume", sha256: str, directory: Path) -> bool:
    """Put a bundle there as one file, unless that content is there already; whether something was sent."""
    name = f"{sha256}.tar"
    if name in sizes(volume, f"bundles/{name}"):
        return False
    with tempfile.TemporaryDirectory(prefix="ftl-bundle-") as scratch:
        packed = Path(scratch) / name
        bundletar.pack(directory, packed)
        with volume.batch_upload(force=True) as batch:
            batch.put_file(packed, f"/bundles/{name}")
    return True


def put_directory(volume: "Volume", source: Path, place: str) -> bool:
    """Put a large directory there, unless it is there whole; whether something was sent. Secret files stay here."""
    folder, _, name = place.rpartition("/")
    if f"{name}.complete" in sizes(volume, folder):
        return False
    with volume.batch_upload(force=True) as batch:
        for directory, names, files in os.walk(source):
            names[:] = sorted(n for n in names if not is_secret_file(n) and n != "__pycache__")
            for file in sorted(f for f in files if not is_secret_file(f)):
                path = Path(directory) / file
                batch.put_file(path, f"/{place}/{path.relative_to(source).as_posix()}")
    with volume.batch_upload(force=True) as batch:
        batch.put_file(io.BytesIO(b"{}"), f"/{folder}/{name}.complete")
    return True


def put_run(volume: "Volume", directory: str, source: Path, names: tuple[str, ...]) -> None:
    """Put files and directories of a run directory there; a directory counts there once its manifest came, last."""
    manifests: list[tuple[Path, str]] = []
    with volume.batch_upload(force=True) as batch:
        for name in names:
            for path in _files_of(source / name):
                place = f"/{directory}/{path.relative_to(source).as_posix()}"
                if path == source / name / MANIFEST_FILE:
                    manifests.append((path, place))
                else:
                    batch.put_file(path, place)
            for number, piece in enumerate(_pieces(source / name) if name in _GROWING else ()):
                batch.put_file(io.BytesIO(piece), f"/{directory}/{_SEGMENTS_DIR}/{name}/{number:06d}")
    with volume.batch_upload(force=True) as batch:
        for path, place in manifests:
            batch.put_file(path, place)


def _files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(SEGMENT_BYTES):
            yield piece


def remove(volume: "Volume", path: str) -> None:
    """Remove a file or a directory; silent where it is gone."""
    import modal

    try:
        volume.remove_file(path, recursive=True)
    except (modal.exception.NotFoundError, FileNotFoundError):
        return
