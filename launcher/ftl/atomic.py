"""Files that are replaced whole or not at all."""

import os
import secrets
import shutil
from pathlib import Path


def write_atomic(path: Path, content: bytes, *, like: Path | None = None) -> None:
    """Put `content` at `path`: temporary file, fsync, rename. A link goes on pointing to the same place.

    `like` is a file whose permissions it gets. A full disk leaves what was there.
    """
    place = path.resolve()
    temporary = place.with_name(f".{place.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if like is not None:
            shutil.copymode(like, temporary)
        temporary.replace(place)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
