"""Pictures that rows name: where they lie, whether they are pictures, and what they are called in a bundle."""

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePath

MAX_BYTES = 100 * 2**20
_BEGINNINGS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"II*\x00", b"MM\x00*")
_RIFF, _WEBP = b"RIFF", b"WEBP"


def name_in_bundle(dataset: str, given: str) -> str:
    """Where a bundle holds the picture that a row of that dataset, such as datasets.0, names."""
    return f"pictures/{dataset}/{hashlib.sha256(given.encode()).hexdigest()[:32]}{PurePath(given).suffix.lower()}"


def locate_picture(given: str, directories: Sequence[Path]) -> Path | None:
    """The file, looked for in those directories one after another."""
    for directory in directories:
        try:
            path = directory / Path(given).expanduser()
            if path.is_file():
                return path
        except (OSError, ValueError, RuntimeError):  # too long for a name, a null in it, no such ~user
            return None
    return None


def fault_of_file(path: Path) -> str | None:
    """Why the file is no picture that can be trained on; None where it is one, as far as its first bytes tell."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            beginning = file.read(16)
    except OSError as e:
        return f"cannot be read: {e.strerror}"
    return _fault(beginning, size)


def fault_of(content: bytes) -> str | None:
    """As fault_of_file, of what a row holds itself."""
    return _fault(content[:16], len(content))


def _fault(beginning: bytes, size: int) -> str | None:
    if size > MAX_BYTES:
        return f"has {size / 2**20:.0f} MiB: must have at most {MAX_BYTES // 2**20}"
    is_webp = beginning[:4] == _RIFF and beginning[8:12] == _WEBP
    if not is_webp and not beginning.startswith(_BEGINNINGS):
        return "is no picture: must be PNG, JPEG, WebP, GIF, BMP or TIFF"
    return None
