"""A bundle as one file, and back."""

import hashlib
import json
import shutil
import tarfile
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

from ftl.contract import MANIFEST_FILE, Mount
from ftl.state import make_private

KEPT_BYTES = 256 * 2**20
"""A larger one does not go to the stores of its run: a checkpoint would wait for it."""
_MTIME = 315_619_200
"""Of each file: 1980-01-02, since the ZIP files in which SkyPilot sends files to a server know nothing before 1980."""
_MANIFEST_BYTES = 16 * 2**20


def identity(digests: Mapping[str, str], mounts: Iterable[Mount]) -> str:
    """The id of a bundle: a sha256 over those of its files, by their places, and what its mounts are known by."""
    known = {"files": dict(digests), "mounts": {mount.name: mount.fingerprint for mount in mounts}}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def size(directory: Path) -> int:
    """Bytes of the files of a bundle."""
    return sum((directory / name).stat().st_size for name in _digests(directory))


def pack(directory: Path, packed: Path) -> None:
    """Write the tar of a bundle. The same bundle gives the same bytes."""
    with tarfile.open(packed, "w") as tar:
        for name in sorted(name for name in _files(directory) if "__pycache__" not in Path(name).parts):
            path = directory / name
            info = tar.gettarinfo(path, name)
            info.mtime, info.mode, info.uid, info.gid, info.uname, info.gname = _MTIME, 0o644, 0, 0, "", ""
            info.type, info.linkname = tarfile.REGTYPE, ""
            info.size = path.stat().st_size
            with path.open("rb") as file:
                tar.addfile(info, file)


def unpack(packed: Path, target: Path, sha256: str, mounts: Iterable[Mount]) -> None:
    """Make the directory of the bundle with that id. Raises ValueError for a file that is another one, OSError."""
    stage = target.with_name(f".{target.name[:12]}-{uuid.uuid4().hex}")
    make_private(stage)
    try:
        with tarfile.open(packed) as tar:
            members = tar.getmembers()
            if sum(member.size for member in members) > KEPT_BYTES + _MANIFEST_BYTES:
                raise ValueError("it is larger than any that is kept")
            if not all(member.isreg() or member.isdir() for member in members):
                raise ValueError("it holds a link")
            tar.extractall(stage, filter="data")
        digests = _digests(stage)
        if foreign := _files(stage) - {*digests, MANIFEST_FILE}:
            raise ValueError(f"{min(foreign)} is not in its manifest")
        for name, digest in digests.items():
            with (stage / name).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                    raise ValueError(f"{name} is not what its manifest says")
        if identity(digests, mounts) != sha256:
            raise ValueError("it is another bundle")
        stage.rename(target)
    except (tarfile.TarError, KeyError) as error:
        raise ValueError(str(error)) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _files(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def _digests(directory: Path) -> dict[str, str]:
    """Place of each file -> sha256. Raises OSError, ValueError, KeyError."""
    digests: dict[str, str] = json.loads((directory / MANIFEST_FILE).read_bytes())["files"]
    return digests
